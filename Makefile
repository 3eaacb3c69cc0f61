# The two that matter: `make serve` and `make test`. Both set up what is missing first; the second time that is instant.

.DEFAULT_GOAL := help
.PHONY: help serve test check setup environment

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: environment ## set up if needed, fetch missing weights, serve; ARGS="--port 9000" is passed on
	@.venv/bin/hearth pull
	@exec .venv/bin/hearth serve $(ARGS)

test: environment ## set up if needed, fetch missing weights, run all tests; ARGS="-k name" is passed on
	@.venv/bin/hearth pull
	@scripts/test $(ARGS)

check: environment ## lint, format and types
	@scripts/check

setup: ## check every step of the set-up again, e.g. after installing another compiler or CUDA
	@scripts/setup --again

environment:
	@scripts/setup
