"""Pure ASGI middleware, outermost first: request id, access log, metering, crash guard, browser guard,
authentication, drain, asker, key limits."""
