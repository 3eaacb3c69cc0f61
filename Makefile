# The two that matter: `make serve` and `make test`. Both set up what is missing first; the second time that is instant.

.DEFAULT_GOAL := help
config := $(if $(CONFIG),--config "$(CONFIG)")
.PHONY: help serve test check bench-chat bench-encoders bench-rag setup environment

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: environment ## set up if needed, fetch missing weights, serve; CONFIG=other.yaml, ARGS="--port 9000"
	@.venv/bin/hearth pull $(config) || [ $$? -eq 1 ] # 1: some weights cannot be had; the other models serve without
	@exec .venv/bin/hearth serve $(config) $(ARGS)

test: environment ## set up if needed, fetch the default weights, run all tests; ARGS="-k name"
	@.venv/bin/hearth pull --config models.yaml
	@scripts/test $(ARGS)

check: environment ## lint, format and types
	@scripts/check

bench-chat: environment ## Hearth against llama-server, an hour on a quiet machine; ARGS="--repetitions 1"
	@.venv/bin/hearth pull --config models.yaml
	@.venv/bin/python -m pip install --quiet --constraint constraints.txt matplotlib
	@.venv/bin/python -m benchmarks.chat $(ARGS)
	@.venv/bin/python -m benchmarks.step_cost
	@.venv/bin/python -m benchmarks.growth
	@.venv/bin/python -m benchmarks.plot
	@.venv/bin/python -m benchmarks.chat_table

bench-encoders: environment ## embeddings and rerank against Infinity and plain sentence-transformers, 20 minutes; ARGS="--repetitions 1"
	@.venv/bin/hearth pull --config models.yaml
	@.venv/bin/python -m pip install --quiet --constraint constraints.txt matplotlib
	@.venv/bin/python -m benchmarks.embeddings $(ARGS)
	@.venv/bin/python -m benchmarks.rerank $(ARGS)
	@.venv/bin/python -m benchmarks.emit
	@.venv/bin/python -m benchmarks.encoder_plot
	@.venv/bin/python -m benchmarks.encoder_table

bench-rag: environment ## documents: search, ingestion, grounded chat against llama-server, two hours; CRANFIELD=folder adds quality
	@.venv/bin/hearth pull --config models.yaml
	@.venv/bin/python -m pip install --quiet --constraint constraints.txt bm25s PyStemmer
	@[ -z "$(CRANFIELD)" ] || .venv/bin/python -m benchmarks.retrieval --folder "$(CRANFIELD)"
	@.venv/bin/python -m benchmarks.vector_search
	@.venv/bin/python -m benchmarks.ingestion
	@.venv/bin/python -m benchmarks.rag $(ARGS)
	@.venv/bin/python -m benchmarks.rag_table

setup: ## check every step of the set-up again, e.g. after installing another compiler or CUDA
	@scripts/setup --again

environment:
	@scripts/setup
