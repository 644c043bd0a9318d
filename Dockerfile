# The gateway without a database: set GATEWAY_DATABASE_URL. The embedded PostgreSQL (extra `embedded`, 73 MB) is left
# out, since a container is replaced at every release. ffmpeg is the one of the extra `ffmpeg` (165 MB), which the lock
# file pins; Debian's takes twice as much with its libraries.
#
#   docker build --build-arg VERSION=0.1.0 -t video-gateway:0.1.0 .
#   docker run --rm -e GATEWAY_DATABASE_URL=postgresql://... video-gateway:0.1.0 migrate
#   docker run -p 127.0.0.1:8080:8080 -v gateway-data:/data -e GATEWAY_DATABASE_URL=postgresql://... video-gateway:0.1.0
#
# /data holds files and secrets. Without a volume there, set GATEWAY_STORAGE_URL to a bucket and GATEWAY_PEPPER: a new
# container with no pepper is refused by a database that has one. A gateway.toml is read from /etc/video-gateway, the
# working directory.
#
# A tag moves, a digest does not. For builds that are the same for ever, add it:
#   docker buildx imagetools inspect python:3.13-slim-trixie
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:... .

ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_PYTHON=/usr/local/bin/python3.13 \
    UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/opt/video-gateway
RUN pip install uv==0.13.9
WORKDIR /src
# Dependencies first: this layer is cached until the lock file changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --extra ffmpeg --extra otel --extra vertex --no-install-project
COPY README.md LICENSE ./
COPY migrations migrations
COPY app app
RUN uv sync --frozen --no-dev --extra ffmpeg --extra otel --extra vertex --no-editable

FROM ${PYTHON_IMAGE}
# pg_dump and pg_restore, for `backup` and `restore`; not older than the server in docker-compose.yml.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-17 \
    && rm -rf /var/lib/apt/lists/*
# A fixed uid, so that volumes and security policies can name it. A new named volume gets the owner of /data.
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data \
    && install --directory /etc/video-gateway
COPY --from=build /opt/video-gateway /opt/video-gateway
ENV PATH=/opt/video-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_DATA_DIR=/data
WORKDIR /etc/video-gateway
USER 10001:10001
EXPOSE 8080
# http.client rather than urllib: it ignores the proxy variables of the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('GATEWAY_PORT') or 8080), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
# Last, so that another version or commit builds nothing anew.
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="video-gateway" \
    org.opencontainers.image.description="The OpenAI Videos API in front of any video vendor" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["video-gateway"]
CMD ["serve", "--host", "0.0.0.0"]
