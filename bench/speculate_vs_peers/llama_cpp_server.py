"""llama.cpp's own server out of PyPI's `xllamacpp`, behind those of llama-server's options that the comparison uses.

    python bench/speculate_vs_peers/llama_cpp_server.py -m model.gguf -md draft.gguf --spec-type draft-simple
"""

import argparse
import signal
import sys

import xllamacpp

TYPES = {
    "draft-simple": "DRAFT_SIMPLE",
    "ngram-simple": "NGRAM_SIMPLE",
    "ngram-cache": "NGRAM_CACHE",
    "ngram-mod": "NGRAM_MOD",
}


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("-md", dest="draft")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--spec-type", choices=list(TYPES))
    parser.add_argument("--spec-draft-n-max", type=int)
    parser.add_argument("--spec-ngram-size-n", type=int)
    parser.add_argument("--spec-ngram-size-m", type=int)
    return parser.parse_args()


def main():
    given = options()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames, parameters.port = ["127.0.0.1"], given.port
    parameters.n_parallel, parameters.n_ctx, parameters.n_gpu_layers = 1, 1024, 0
    drafts = parameters.speculative
    pools = [parameters.cpuparams, parameters.cpuparams_batch, drafts.draft.cpuparams, drafts.draft.cpuparams_batch]
    for pool in pools:
        pool.n_threads = given.threads
    if given.spec_type:
        drafts.types = [getattr(xllamacpp.common_speculative_type, f"COMMON_SPECULATIVE_TYPE_{TYPES[given.spec_type]}")]
    if given.draft:
        drafts.draft.mparams.path, drafts.draft.n_gpu_layers = given.draft, 0
    if given.spec_draft_n_max:
        drafts.draft.n_max = given.spec_draft_n_max
    if given.spec_ngram_size_n:
        drafts.ngram_simple.size_n, drafts.ngram_simple.size_m = given.spec_ngram_size_n, given.spec_ngram_size_m
    running = xllamacpp.Server(parameters)
    print(f"xllamacpp {xllamacpp.__version__} at {running.listening_address}", file=sys.stderr, flush=True)
    signal.sigwait([signal.SIGINT, signal.SIGTERM])


if __name__ == "__main__":
    main()
