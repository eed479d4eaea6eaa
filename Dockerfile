# Build:                   docker build --tag llm-gateway .
# With the local model:    docker build --tag llm-gateway --build-arg LOCAL_MODEL=1 .
# With similar questions:  docker build --tag llm-gateway --build-arg SEMANTIC_CACHE=1 .

FROM python:3.13-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
# The local model's library uses the OpenMP runtime, which slim images lack.
ARG LOCAL_MODEL=0
# hadolint ignore=DL3008
RUN if [ "$LOCAL_MODEL" = 1 ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends libgomp1 \
        && rm -rf /var/lib/apt/lists/*; \
    fi


FROM base AS build
ENV UV_PYTHON=/opt/venv/bin/python \
    UV_PYTHON_DOWNLOADS=never \
    UV_NO_CACHE=1
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/bootstrap.lock \
    && python -m venv --without-pip /opt/venv \
    && uv pip sync --require-hashes --compile-bytecode requirements/runtime.lock
ARG LOCAL_MODEL=0
RUN if [ "$LOCAL_MODEL" = 1 ]; then \
        uv pip install --require-hashes --no-deps --only-binary :all: --compile-bytecode \
            --requirements requirements/local.lock; \
    fi
ARG SEMANTIC_CACHE=0
RUN if [ "$SEMANTIC_CACHE" = 1 ]; then \
        uv pip install --require-hashes --no-deps --only-binary :all: --compile-bytecode \
            --requirements requirements/semantic.lock; \
    fi
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY migrations/ migrations/
COPY src/ src/
# Editable, so that the code, its migrations and alembic.ini stay together in /app; the build backend stays out of
# the environment. What is compiled here needs no writable directory later.
RUN uv pip install --no-deps --build-constraints requirements/dev.lock --editable . \
    && python -m compileall -q src migrations


FROM base AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin gateway \
    && install --directory --owner=gateway --group=gateway --mode=0700 /app/data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app/pyproject.toml /app/alembic.ini /app/LICENSE /app/
COPY --from=build /app/migrations /app/migrations
COPY --from=build /app/src /app/src
WORKDIR /app
USER 10001:10001
ENV GATEWAY_HOST=0.0.0.0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('GATEWAY_PORT') or 8000), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["llm-gateway"]
CMD ["serve"]
