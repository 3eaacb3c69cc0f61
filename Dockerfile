# Hearth for processors. For NVIDIA GPUs: Dockerfile.cuda. How to run it: docs/operations.md.
#
#   docker build -t hearth .
#   docker build -t hearth --build-arg CMAKE_ARGS=-DGGML_NATIVE=ON .    # for this very machine: faster, and only there
#
# Reproducible: give the base by its digest, --build-arg BASE=python@sha256:…; constraints.txt has the rest. Of pip's settings
# (an index of your own, one with CPU builds of torch) all are yours: PIP_* as build arguments named below, or a pip.conf as
# a secret, which stays out of the image: --secret id=pip.conf,src=pip.conf

ARG BASE=python:3.11-slim-bookworm

# hadolint ignore=DL3006  # the tag or digest is in BASE
FROM ${BASE} AS build
# Of a stable release, which mends and does not change; a digest as BASE does not hold them either.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang-19 libomp-19-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hearth
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts scripts
COPY server server
# Any x86-64 with AVX2, or any 64-bit Arm. The machine's own instructions make prompts up to five times as fast (AMX).
ARG CMAKE_ARGS=-DGGML_NATIVE=OFF
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
# The set-up of every clone: it chooses the compiler, compiles llama.cpp, installs what constraints.txt pins, and decodes
# with what it has built. Its cache is kept between builds: llama.cpp is compiled once for each version and CMAKE_ARGS.
RUN --mount=type=cache,target=/var/cache/build \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf,required=false \
    XDG_CACHE_HOME=/var/cache/build scripts/setup --serving

# hadolint ignore=DL3006
FROM ${BASE} AS run
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libomp5-19 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/hearth --shell /usr/sbin/nologin hearth \
    && install --directory --owner hearth --group hearth --mode 0700 \
        /var/lib/hearth /var/lib/hearth/data /var/lib/hearth/weights /var/lib/hearth/cache
COPY --from=build /opt/hearth/.venv /opt/hearth/.venv
COPY deploy/healthcheck.py /opt/hearth/healthcheck.py
COPY models.yaml /etc/hearth/models.yaml
ENV PATH=/opt/hearth/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/var/lib/hearth/cache \
    HEARTH_CONFIG=/etc/hearth/models.yaml \
    HEARTH_DATA_DIR=/var/lib/hearth/data \
    HEARTH_WEIGHTS_DIR=/var/lib/hearth/weights \
    HEARTH_HOST=0.0.0.0 \
    HEARTH_PORT=8000
USER 10001:10001
WORKDIR /var/lib/hearth
VOLUME ["/var/lib/hearth/data", "/var/lib/hearth/weights", "/var/lib/hearth/cache"]
EXPOSE 8000
# Whether the process lives; models may still be loading, which /ready tells.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/hearth/healthcheck.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["hearth"]
CMD ["serve"]
