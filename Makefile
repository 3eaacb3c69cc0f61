# The two that matter: `make serve` and `make test`. Both set up what is missing first; the second time that is instant.

.DEFAULT_GOAL := help
config := $(if $(CONFIG),--config "$(CONFIG)")
.PHONY: help serve test check setup environment

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: environment ## set up if needed, fetch missing weights, serve; CONFIG=other.yaml, ARGS="--port 9000"
	@.venv/bin/hearth pull $(config) || [ $$? -eq 1 ] # 1: some weights cannot be had; the other models serve without
	@exec .venv/bin/hearth serve $(config) $(ARGS)

test: environment ## set up if needed, fetch the default weights, run all tests; ARGS="-k name"
	@.venv/bin/hearth pull --config models.yaml
	@scripts/test $(ARGS)

check: environment ## lint, format and types
	@scripts/check

setup: ## check every step of the set-up again, e.g. after installing another compiler or CUDA
	@scripts/setup --again

environment:
	@scripts/setup
