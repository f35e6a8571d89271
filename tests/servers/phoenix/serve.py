"""Phoenix, whose gRPC port listens on this machine alone: it has no setting for that."""

import sys

from grpc.aio import _server

listen = _server.Server.add_insecure_port


def listen_on_loopback(server, address):
    return listen(server, address.replace("[::]", "127.0.0.1"))


_server.Server.add_insecure_port = listen_on_loopback
sys.argv = ["phoenix", "serve"]

from phoenix.server.main import main  # noqa: E402

main()
