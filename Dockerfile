# The worker and its ingest. Settings come from the environment; nothing but LOCAL_DIR is written to.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN pip install --require-hashes --only-binary :all: -r requirements/build.txt -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
RUN pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="atproto-streams" \
      org.opencontainers.image.description="The AT Protocol's firehose through Kafka into Postgres" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 LOCAL_DIR=/var/lib/atproto-streams
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin streams \
 && install --directory --owner=10001 /var/lib/atproto-streams
USER 10001
WORKDIR /var/lib/atproto-streams
STOPSIGNAL SIGTERM
# The event loop answers.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
  CMD ["python", "-c", "from http.client import HTTPConnection as C; from os import environ; c = C('127.0.0.1', int(environ.get('WORKER_WEB_PORT') or 6066), timeout=8); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "streams.worker.container"]
