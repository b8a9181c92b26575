"""llama.cpp's side: its own server out of PyPI's `xllamacpp`, a process for each way.

The draft model is the same model in Q4_0, with a cache of its own, as llama.cpp has it. The n-gram drafts look for the
newest tokens earlier in the text.
"""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import xllamacpp  # noqa: F401  (is it there?)

HERE = Path(__file__).resolve().parent
WAYS = {
    "draft model, 2": ["--spec-type", "draft-simple", "--spec-draft-n-max", 2],
    "draft model, 4": ["--spec-type", "draft-simple", "--spec-draft-n-max", 4],
    "n-gram (simple)": ["--spec-type", "ngram-simple", "--spec-ngram-size-n", 3, "--spec-ngram-size-m", 4],
    "n-gram (cache)": ["--spec-type", "ngram-cache", "--spec-draft-n-max", 4],
}
FIRST_PORT = 18090


class Side:
    """Servers that wait, of which one works at a time."""

    def __init__(self, job):
        self.new_tokens, self.ways, self.urls = job.new_tokens, list(WAYS), {}
        work = Path(job.work)
        work.mkdir(parents=True, exist_ok=True)
        files = {kind: work / f"{Path(job.model).resolve().name}-{kind}.gguf" for kind in (job.dtype, "q4_0")}
        for kind, file in files.items():
            if not file.exists():
                command = [job.offramp, "export", job.model, "--gguf", file, "--type", kind]
                subprocess.run(list(map(str, command)), check=True, capture_output=True)
        self.processes = []
        for port, (way, options) in enumerate({None: [], **WAYS}.items(), FIRST_PORT):
            command = [sys.executable, HERE / "llama_cpp_server.py", "-m", files[job.dtype], "--port", port]
            command += ["-t", job.threads, *options]
            if "draft-simple" in options:
                command += ["-md", files["q4_0"]]
            self.processes.append(subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL))
            self.urls[way] = f"http://127.0.0.1:{port}"
            self.wait(self.urls[way])

    def __del__(self):
        for process in self.processes:
            process.terminate()

    def wait(self, url):
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"llama.cpp's server at {url} did not start")

    def decode(self, prompt, way):
        asked = {"prompt": prompt, "n_predict": self.new_tokens, "temperature": 0, "ignore_eos": True}
        asked |= {"cache_prompt": False, "return_tokens": True}
        body = json.dumps(asked).encode()
        request = urllib.request.Request(f"{self.urls[way]}/completion", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            answer = json.load(reply)
        return answer["timings"]["predicted_per_second"], answer["tokens"]
