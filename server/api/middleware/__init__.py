"""Pure ASGI middleware, outermost first: request id, access log, crash guard, browser guard, authentication."""
