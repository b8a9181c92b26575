"""guidellm against the server: a short run of two streams, with synthetic prompts, and no request fails."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import checks
from checks import equal, true

REQUESTS = 8


def run(given, url, request_format):
    program, report = Path(sys.executable).parent / "guidellm", given.work / "guidellm.json"
    report.unlink(missing_ok=True)
    words = [program, "run", "--backend", f"kind=openai_http,target={url},request_format={request_format}"]
    words += ["--tokenizer", f"kind=huggingface_auto,model={given.model}"]
    words += ["--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"]
    words += ["--profile", "kind=concurrent,streams=2", "--constraint", f"kind=max_requests,count={REQUESTS}"]
    words += ["--output", f"kind=json,path={report}", "--disable-console"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600, env=environment)
    true(ran.returncode == 0, f"it exits with {ran.returncode}: {(ran.stderr or ran.stdout)[-1500:]}")
    [benchmark] = json.loads(report.read_text())["benchmarks"]
    return benchmark


def counted(benchmark):
    totals = benchmark["metrics"]["request_totals"]
    equal((totals["successful"], totals["errored"]), (REQUESTS, 0), "successful and failed requests")
    tokens = benchmark["metrics"]["output_token_count"]["successful"]
    equal(tokens["total_sum"], 16 * REQUESTS, "output tokens")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("guidellm", importlib.metadata.version("guidellm"))
    with check("completions: all succeed, with the tokens that were asked for"):
        counted(run(given, given.plain, "/v1/completions"))
    if given.chat:
        with check("chat: all succeed"):
            counted(run(given, given.chat, "/v1/chat/completions"))
    check.finish()


if __name__ == "__main__":
    main()
