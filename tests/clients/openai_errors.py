"""The `openai` package when things go wrong: each refusal is the right exception, and a full server is asked again."""

import json
import threading
import time
import urllib.error
import urllib.request

import openai

import checks
import recording_proxy
from checks import equal, true

PROMPT = "Once upon a time"


def one_line(error, status):
    equal(error.status_code, status, "status")
    message = error.body["message"]
    true(message and "\n" not in message, f"message {message!r}")
    true(error.request_id, "no request id")


def refusals(check, client, model):
    def ask(**fields):
        return client.completions.create(**({"model": model, "prompt": PROMPT, "max_tokens": 4} | fields))

    with check("a prompt that does not fit: BadRequestError, context_length_exceeded, both numbers"):
        error = checks.raises(openai.BadRequestError, ask, prompt=[5] * 5000, max_tokens=16)
        one_line(error, 400)
        equal(error.code, "context_length_exceeded", "code")
        true("5000" in error.body["message"].replace(",", ""), error.body["message"])
    with check("a prompt that fits, but not with its new tokens: it is read whole, and the text ends with the context"):
        space = client.models.list().data[0].max_model_len
        answer = ask(prompt=[5] * 100, max_tokens=100_000, extra_body={"ignore_eos": True})
        usage = (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.choices[0].finish_reason)
        equal(usage, (100, space, "length"), "tokens of the prompt, all tokens, finish reason")
    wrong = {
        "temperature": {"temperature": -1},
        "top_p": {"top_p": -1},
        "n": {"n": 0},
        "suffix": {"suffix": " the end"},
        "ids beyond the vocabulary": {"prompt": [1, 2, 10_000_000]},
        "negative ids": {"prompt": [-1]},
        "an empty batch": {"prompt": []},
        "exit layer": {"extra_body": {"exit_layer": 1000}},
        "speculation": {"extra_body": {"speculate": "sometimes"}},
        "a schema that is none": {
            "extra_body": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}}
        },
    }
    for name, fields in wrong.items():
        with check(f"{name}: BadRequestError"):
            one_line(checks.raises(openai.BadRequestError, ask, **fields), 400)
    with check("another model's name: NotFoundError"):
        one_line(checks.raises(openai.NotFoundError, ask, model="nobody"), 404)
    with check("an endpoint that is not there: NotFoundError"):
        fields = {"model": model, "input": "x"}
        checks.raises(openai.NotFoundError, client.embeddings.create, **fields)
    with check("after all this it still answers"):
        true(ask().choices[0].text, "no text")


def keys(check, url):
    for name, key in {"a wrong key": "wrong", "no key": ""}.items():
        with check(f"{name}: AuthenticationError"):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "x", max_retries=0)
            headers = {} if key else {"Authorization": openai.Omit()}
            error = checks.raises(openai.AuthenticationError, client.models.list, extra_headers=headers)
            equal(error.status_code, 401, "status")


class Crowd:
    """Clients that keep a server full."""

    def __init__(self, url, count):
        self.url, self.going = url, True
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.stop()
        for thread in self.threads:
            thread.join(60)

    def stop(self):
        self.going = False

    def ask(self):
        body = json.dumps({"prompt": PROMPT, "max_tokens": 400, "ignore_eos": True}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {checks.KEY}"}
        end = time.monotonic() + 60
        while self.going and time.monotonic() < end:
            try:
                request = urllib.request.Request(f"{self.url}/v1/completions", body, headers)
                urllib.request.urlopen(request, timeout=60).read()
            except urllib.error.HTTPError:
                time.sleep(0.005)
            except OSError:
                return


def full(check, url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=checks.KEY, max_retries=0)
    model = client.models.list().data[0].id

    def ask(client):
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=2, temperature=0)

    with check("a full server: RateLimitError with retry-after"):
        with Crowd(url, 6):
            error = until(openai.RateLimitError, lambda: ask(client))
        equal(error.status_code, 429, "status")
        true(float(error.response.headers["retry-after"]) > 0, f"retry-after {error.response.headers['retry-after']}")
    with check("a full server: retries wait as told, and succeed when it is free"):
        with recording_proxy.RecordingProxy(url) as proxy:
            retrying = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=checks.KEY, max_retries=8)
            for _ in range(10):
                proxy.seen.clear()
                with Crowd(url, 6) as crowd:
                    threading.Timer(1.5, crowd.stop).start()
                    answer = ask(retrying)
                if len(proxy.seen) > 1:
                    break
        true(len(proxy.seen) > 1, "ten times there was a place at once")
        true(answer.choices[0].text is not None, "no text")
        for (_, answered, status, told), (again, *_) in zip(proxy.seen, proxy.seen[1:]):
            equal(status, 429, "status before a retry")
            wait = again - answered
            true(wait >= 0.95 * float(told), f"it asked again after {wait:.2f} s, and was told {told} s")
        equal(proxy.seen[-1][2], 200, "the last status")


def until(kind, call):
    """The first error of this kind, of at most 200 calls."""
    for _ in range(200):
        try:
            call()
        except kind as error:
            return error
    raise AssertionError(f"200 calls, and no {kind.__name__}")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("openai: errors", openai.__version__)
    client = openai.OpenAI(base_url=f"{given.plain}/v1", api_key="none", max_retries=0, timeout=60)
    refusals(check, client, client.models.list().data[0].id)
    with check("nobody listens: APIConnectionError"):
        nobody = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
        checks.raises(openai.APIConnectionError, nobody.models.list)
    if given.tight:
        keys(check, given.tight)
        full(check, given.tight)
    check.finish()


if __name__ == "__main__":
    main()
