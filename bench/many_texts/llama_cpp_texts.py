"""llama.cpp's side: holds one model, and answers each line on stdin with the seconds that it took.

    N PROMPT NEW SAMPLES     N texts with prompts of PROMPT tokens, then NEW tokens of each, the latter SAMPLES times

As `llama-batched-bench` does: one call takes all prompts, then one call a step takes one token of each text. Every
text is a sequence of its own; each step gives the logits of every text, and the largest is its next token. As offramp
counts, the first new token belongs to the prefill. Only calls of llama.cpp are in `prefill` and `decode`; the seconds that
Python takes between them are in `outside`.
"""

import sys
import time
from pathlib import Path

import llama_cpp
import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "decode_vs_llama_cpp"))

import llama_cpp_speed as one_text


class Batch:
    """A `llama_batch` and what of it changes, as arrays: row by row a token, its position and its text."""

    def __init__(self, rows):
        self.rows = rows
        self.batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        self.batch.n_tokens = len(rows)
        view = lambda field: numpy.ctypeslib.as_array(field, (len(rows),))
        self.tokens, self.positions, self.wants_logits = map(view, [self.batch.token, self.batch.pos, self.batch.logits])
        for row, (text, position) in enumerate(rows):
            self.batch.n_seq_id[row] = 1
            self.batch.seq_id[row][0] = text
            self.positions[row] = position

    def free(self):
        llama_cpp.llama_batch_free(self.batch)


class Texts:
    """Texts that decode together."""

    def __init__(self, model, arguments, count, prompt_tokens, new_tokens):
        self.count, self.prompt_tokens, self.new_tokens = count, prompt_tokens, new_tokens
        self.vocab = one_text.vocabulary(model)
        parameters = one_text.context_parameters(arguments, count * (prompt_tokens + new_tokens))
        parameters.n_batch = max(512, count * prompt_tokens)  # a call takes all prompts, 512 rows at a time
        parameters.n_seq_max = count
        parameters.kv_unified = arguments.kv_unified
        self.context = llama_cpp.llama_init_from_model(model, parameters)
        if not self.context:
            sys.exit(f"llama.cpp has no room for {count} texts")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.prompts = Batch([(text, position) for text in range(count) for position in range(prompt_tokens)])
        self.prompts.wants_logits[:] = self.prompts.positions == prompt_tokens - 1
        # Each text has other tokens; they are those that offramp takes.
        rows = self.prompts.rows
        self.prompts.tokens[:] = [(position * 7919 + text * 104_729) % self.vocab for text, position in rows]
        self.step = Batch([(text, prompt_tokens) for text in range(count)])
        self.step.wants_logits[:] = 1
        self.first = None

    def free(self):
        self.prompts.free()
        self.step.free()
        llama_cpp.llama_free(self.context)

    def call(self, batch):
        began = time.perf_counter()
        failed = llama_cpp.llama_decode(self.context, batch.batch)
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - began
        if failed:
            sys.exit(f"llama.cpp could not decode {len(batch.rows)} rows ({failed})")
        return seconds

    def next_tokens(self):
        logits = llama_cpp.llama_get_logits(self.context)
        return numpy.ctypeslib.as_array(logits, (self.count, self.vocab)).argmax(axis=1)

    def prefill(self):
        """Seconds of all prompts."""
        llama_cpp.llama_memory_clear(self.memory, False)
        seconds = self.call(self.prompts)
        self.first = self.next_tokens()
        return seconds

    def decode(self):
        """Seconds of the new tokens after the first, those outside llama.cpp, and each text's tokens."""
        llama_cpp.llama_memory_seq_rm(self.memory, -1, self.prompt_tokens, -1)
        self.step.positions[:] = self.prompt_tokens
        found, inside, began = [self.first], 0.0, time.perf_counter()
        for _ in range(self.new_tokens - 1):
            self.step.tokens[:] = found[-1]
            inside += self.call(self.step)
            found.append(self.next_tokens())
            self.step.positions[:] += 1
        return inside, time.perf_counter() - began - inside, numpy.stack(found, axis=1)


def main():
    parser = one_text.options(__doc__)
    parser.add_argument("--kv-unified", action="store_true", help="one cache of keys and values for all texts")
    arguments = parser.parse_args()
    answer = one_text.answers()
    began = time.perf_counter()
    model = one_text.load(arguments)
    warm_up = Texts(model, arguments, 1, 8, 4)
    warm_up.prefill()
    warm_up.decode()
    warm_up.free()
    answer(**one_text.about(model, time.perf_counter() - began))
    for line in sys.stdin:
        count, prompt_tokens, new_tokens, samples = map(int, line.split())
        texts = Texts(model, arguments, count, prompt_tokens, new_tokens)
        prefill = texts.prefill()
        decode, outside, _ = zip(*[texts.decode() for _ in range(samples)])
        answer(prefill=prefill, decode=decode, outside=outside)
        texts.free()


if __name__ == "__main__":
    main()
