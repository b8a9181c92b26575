"""llama.cpp's side: holds one model, and answers each line on stdin with the seconds that it took.

    prefill N        a prompt of N tokens, with the logits of its last position
    decode N M       M tokens one by one, after a prompt of N that is not timed

It answers with one JSON object a line; the first, before any line is read, says what it is and has loaded.
"""

import argparse
import json
import os
import resource
import sys
import time

import llama_cpp
import numpy


def options(description):
    """The options of a process that holds one model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--mmap", action="store_true")
    parser.add_argument("--flash-attention", type=int, default=1)
    parser.add_argument("--no-repack", action="store_true", help="leave the weights as the file has them")
    return parser


def answers():
    """Answers go to what was stdout; llama.cpp's own messages go nowhere."""
    stdout = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    if not os.environ.get("LLAMA_LOUD"):
        os.dup2(silence, 2)

    def answer(**what):
        stdout.write(json.dumps(what) + "\n")
        stdout.flush()

    return answer


def load(arguments):
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_mmap = arguments.mmap
    parameters.use_extra_bufts = not arguments.no_repack
    model = llama_cpp.llama_model_load_from_file(arguments.model.encode(), parameters)
    if not model:
        sys.exit(f"llama.cpp cannot load {arguments.model}")
    return model


def context_parameters(arguments, positions):
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = positions
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = arguments.threads
    parameters.flash_attn_type = arguments.flash_attention
    parameters.no_perf = True
    return parameters


def vocabulary(model):
    return llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))


def about(model, seconds):
    """What the first answer says."""
    return {
        "loaded": seconds,
        "version": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode(),
        "bytes": llama_cpp.llama_model_size(model),
    }


def main():
    parser = options(__doc__)
    parser.add_argument("--context", type=int, default=1024)
    arguments = parser.parse_args()
    answer = answers()
    began = time.perf_counter()
    model = load(arguments)
    context = llama_cpp.llama_init_from_model(model, context_parameters(arguments, arguments.context))
    vocab = vocabulary(model)
    memory = llama_cpp.llama_get_memory(context)

    def feed(tokens):
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch borrows them
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(tokens))) != 0:
            sys.exit("llama.cpp could not decode")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(numpy.ctypeslib.as_array(logits, (vocab,)).argmax())

    def prefill(tokens):
        llama_cpp.llama_memory_clear(memory, False)
        prompt = [i * 7919 % vocab for i in range(tokens)]
        began = time.perf_counter()
        token = feed(prompt)
        return time.perf_counter() - began, token

    def decode(tokens, new_tokens):
        _, token = prefill(tokens)
        began = time.perf_counter()
        for _ in range(new_tokens):
            token = feed([token])
        return time.perf_counter() - began

    answer(**about(model, time.perf_counter() - began))
    for line in sys.stdin:
        what, *numbers = line.split()
        numbers = [int(number) for number in numbers]
        seconds = prefill(*numbers)[0] if what == "prefill" else decode(*numbers)
        answer(seconds=seconds, peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
