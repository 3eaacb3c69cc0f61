"""Pure ASGI middleware, outermost first: request id, access log, crash guard, asker, key limits."""
