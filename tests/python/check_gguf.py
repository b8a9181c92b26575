"""Stock llama.cpp loads the GGUF files that offramp writes, and says the same.

    pip install llama-cpp-python
    python tests/python/check_gguf.py models/tinystories-24 --offramp target/release/offramp

For each format the file is written, loaded by llama.cpp, and continued greedily by both. In f32 and bf16 all texts must be
equal. In f16 llama.cpp rounds activations to f16, and in q8_0 and q4_0 both round in their own way: there the count is told.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from llama_cpp import Llama

PROMPTS = ["Once upon a time", "Tom saw a big dog.", "  two  spaces\n", "naïve café 🙂 12 cats"]


def ours(job, file, prompt):
    words = [job.offramp, "generate", file, "--json", "--prompt", prompt, "--temperature", "0"]
    words += ["--max-new-tokens", str(job.new_tokens)]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)["text"]


def check(job, folder, kind):
    file = Path(folder) / f"{kind}.gguf"
    words = [job.offramp, "export", *([job.model] if job.model else []), "--gguf", file, "--type", kind]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    model = Llama(str(file), n_ctx=256, verbose=False)
    same = 0
    for prompt in PROMPTS:
        theirs = model.create_completion(prompt, max_tokens=job.new_tokens, temperature=0, repeat_penalty=1.0)["choices"][0]["text"]
        same += theirs == ours(job, file, prompt)
    print(f"{kind}: {same} of {len(PROMPTS)} greedy texts are llama.cpp's", flush=True)
    return same == len(PROMPTS) or kind not in ("f32", "bf16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model folder [default: the carried model]")
    parser.add_argument("--offramp", required=True)
    parser.add_argument("--new-tokens", type=int, default=40)
    job = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [check(job, folder, kind) for kind in ("f32", "f16", "bf16", "q8_0", "q4_0")]
    raise SystemExit(not all(good))


if __name__ == "__main__":
    main()
