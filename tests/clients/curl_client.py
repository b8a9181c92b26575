"""curl against every endpoint: as a user types it, with what it prints and how it exits."""

import json
import re
import subprocess

import checks
from checks import equal, true


def curl(*arguments):
    """What curl prints. -f: an error status is an error of curl's (22)."""
    ran = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True)
    if ran.returncode:
        raise AssertionError(f"curl {' '.join(arguments)} exits with {ran.returncode}: {ran.stderr.decode()}")
    return ran.stdout


def posted(url, body, *arguments):
    return curl(url, "-H", "content-type: application/json", "-d", json.dumps(body), *arguments)


def status(*arguments):
    return int(curl("-o", "/dev/null", "-w", "%{http_code}", *arguments))


def reading(check, url):
    for path in ("/health", "/health/live", "/health/ready"):
        with check(f"GET {path}"):
            equal(json.loads(curl("-f", url + path))["status"], "ok", "status")
    with check("GET /v1/models"):
        true("root" in json.loads(curl("-f", f"{url}/v1/models"))["data"][0], "no root")
    with check("GET /metrics: each line is a comment or a sample"):
        lines = curl("-f", f"{url}/metrics").decode().splitlines()
        sample = re.compile(r"[a-zA-Z_:][\w:]*(\{[^}]*\})? (\S+)$")
        wrong = [line for line in lines if line and not line.startswith("#") and not sample.match(line)]
        equal(wrong, [], "lines")
        true(any(line.startswith("offramp_texts_running") for line in lines), "no offramp_texts_running")
    with check("GET /openapi.json"):
        paths = json.loads(curl("-f", f"{url}/openapi.json"))["paths"]
        true("/v1/completions" in paths, f"paths {sorted(paths)}")
    with check("GET /: the page"):
        headers = curl("-f", "-D", "-", "-o", "/dev/null", f"{url}/").decode().lower()
        true("text/html" in headers, headers)
    with check("GET /tokenizer_info"):
        true(isinstance(json.loads(curl("-f", f"{url}/tokenizer_info")), dict), "no object")


def writing(check, url):
    with check("POST /v1/completions"):
        answer = json.loads(posted(f"{url}/v1/completions", {"prompt": "Once upon", "max_tokens": 5}, "-f"))
        equal(answer["object"], "text_completion", "object")
    with check("POST /v1/completions, -N: events and [DONE]"):
        body = {"prompt": "Once upon", "max_tokens": 5, "stream": True}
        events = posted(f"{url}/v1/completions", body, "-f", "-N").decode().strip().split("\n\n")
        equal(events[-1], "data: [DONE]", "the last event")
        for event in events[:-1]:
            true(event.startswith(":") or json.loads(event.removeprefix("data: "))["choices"], event)
    with check("POST /tokenize and /detokenize: there and back"):
        found = json.loads(posted(f"{url}/tokenize", {"content": "Once upon a time"}, "-f"))
        equal(found["count"], len(found["tokens"]), "count")
        text = json.loads(posted(f"{url}/detokenize", {"tokens": found["tokens"]}, "-f"))
        equal((text["prompt"], text["content"]), ("Once upon a time",) * 2, "text")
    with check("POST /v1/exits"):
        found = json.loads(posted(f"{url}/v1/exits", {"prompt": "Once upon a time", "exits": [6, 24]}, "-f"))
        equal(found["exit_layers"], [6, 24], "exit layers")
        last = found["positions"][-1]
        equal((last["token_id"], len(last["exits"])), (None, 2), "the last position")
        equal(len(last["exits"][0]["top"]), 5, "the most likely tokens")
    with check("Expect: 100-continue, a body of 100 kB"):
        body = {"prompt": "a " * 50_000, "max_tokens": 1}
        found = json.loads(posted(f"{url}/v1/completions", body, "-H", "Expect: 100-continue"))
        equal(found["error"]["code"], "context_length_exceeded", "code")


def refusing(check, url):
    with check("404, 405, 400"):
        equal(status(f"{url}/nowhere"), 404, "an unknown path")
        equal(status("-X", "DELETE", f"{url}/v1/completions"), 405, "an unknown method")
        equal(status(f"{url}/v1/completions", "-H", "content-type: application/json", "-d", "{"), 400, "half a body")
    with check("a page of another site is refused (Origin), and so is another name (Host)"):
        origin = status(f"{url}/v1/models", "-H", "Origin: http://example.com")
        host = status(f"{url}/v1/models", "-H", "Host: example.com")
        equal((origin, host), (403, 403), "statuses")
    with check("HEAD /health"):
        equal(status("-I", f"{url}/health"), 200, "status")


def main():
    given = checks.options(__doc__)
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]
    check = checks.Checks("curl", version)
    for part in (reading, writing, refusing):
        part(check, given.plain)
    with check("a key in the header"):
        models = f"{given.tight}/v1/models"
        right = status(models, "-H", f"Authorization: Bearer {checks.KEY}")
        equal((status(models), right), (401, 200), "statuses")
    check.finish()


if __name__ == "__main__":
    main()
