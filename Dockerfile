# MagicAPI Gateway with its exporters. glibc on both sides: a statically linked (musl) gateway cannot load plugins, and a
# plugin needs a glibc at least as new as the one it was built against.
#
#     docker build -t magicapi-gateway .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN make build \
 && install -D -t /out/bin target/release/magicapi-gateway \
 && install -D -m 0644 -t /out/plugins target/plugin/lib*_exporter.so

FROM debian:bookworm-slim
# The system's CA certificates: for providers and for backends with TLS.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home magicapi \
 && install -d -o magicapi /var/lib/magicapi
COPY --from=build /out/bin/magicapi-gateway /usr/local/bin/
# Owned by root and writable by nobody else: the gateway refuses plugin files that others could change.
COPY --from=build /out/plugins /opt/magicapi/plugins
# Clients on all interfaces, and they need no credential of their own: with an `api_key` in the configuration whoever reaches
# port 3000 uses it. Publish it where only your clients are (`-p 127.0.0.1:3000:3000`). The operators' port stays on loopback unless ADMIN_LISTEN and ADMIN_TOKEN are set.
ENV HOST=0.0.0.0 PORT=3000 MAGICAPI_PLUGIN_DIR=/opt/magicapi/plugins
USER 10001
WORKDIR /var/lib/magicapi
EXPOSE 3000 9464
# As the first process it gets SIGTERM, finishes requests and drains its exporters: give it longer than
# server.drain_delay, server.shutdown_grace and telemetry.drain_timeout together.
STOPSIGNAL SIGTERM
# It finds the port by the same environment. For a configuration of your own set MAGICAPI_CONFIG: it does not see `--config`.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["magicapi-gateway", "health"]
ENTRYPOINT ["magicapi-gateway"]
