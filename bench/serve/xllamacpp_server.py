"""llama.cpp's own server out of PyPI's `xllamacpp`, behind those of llama-server's options that `compare.py` uses.

    pip install xllamacpp
    python bench/serve/xllamacpp_server.py -m model.gguf --port 8080 -t 2 -np 8 -c 4096

The wheel carries the C++ server, HTTP included; Python only fills its parameters and waits. Everything that is not
set here has the default of the wheel's llama.cpp.
"""

import argparse
import signal
import sys

import xllamacpp


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("-tb", dest="threads_batch", type=int, default=2)
    parser.add_argument("-np", dest="slots", type=int, default=1)
    parser.add_argument("-c", dest="context", type=int, default=4096)
    parser.add_argument("-fa", dest="flash_attention", choices=["on", "off", "auto"], default="auto")
    return parser.parse_args()


def main():
    given = options()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames = [given.host]
    parameters.port = given.port
    parameters.n_parallel, parameters.n_ctx = given.slots, given.context
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads = given.threads, given.threads_batch
    kinds = xllamacpp.llama_flash_attn_type
    parameters.flash_attn_type = {
        "on": kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": kinds.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }[given.flash_attention]
    running = xllamacpp.Server(parameters)
    print(f"xllamacpp {xllamacpp.__version__} at {running.listening_address}", file=sys.stderr, flush=True)
    signal.sigwait([signal.SIGINT, signal.SIGTERM])


if __name__ == "__main__":
    main()
