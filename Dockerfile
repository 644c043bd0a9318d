# The gateway without a database: set GATEWAY_DATABASE_URL. The embedded PostgreSQL (extra `embedded`, 66 MB) is left
# out, since a container is replaced at every release. ffmpeg comes from Debian.
#
#   docker build -t video-gateway .
#   docker run -p 8080:8080 -v gateway-data:/data -e GATEWAY_DATABASE_URL=postgresql://... video-gateway
#
# Run `docker run ... video-gateway migrate` first; it brings the database to the current schema. A gateway.toml is read
# from /etc/video-gateway, the working directory.

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_PYTHON=/usr/local/bin/python3.13 \
    UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/opt/video-gateway
RUN pip install uv
WORKDIR /src
# Dependencies first: this layer is cached until the lock file changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --extra otel --extra vertex --no-install-project
COPY README.md LICENSE ./
COPY migrations migrations
COPY app app
RUN uv sync --frozen --no-dev --extra otel --extra vertex --no-editable

FROM python:3.13-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
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
VOLUME /data
EXPOSE 8080
# http.client rather than urllib: it ignores the proxy variables of the environment.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('GATEWAY_PORT') or 8080), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["video-gateway"]
CMD ["serve", "--host", "0.0.0.0"]
