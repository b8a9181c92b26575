"""The `openai` package against /v1/models and /v1/completions: what it sends, what it makes of replies and streams."""

import asyncio
import json
import urllib.request

import openai

import checks
from checks import equal, true

PROMPT = "Once upon a time, there was a little girl named"


class Completions:
    def __init__(self, url):
        self.url = url
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        self.model = self.client.models.list().data[0].id

    def ask(self, prompt=PROMPT, **fields):
        fields = {"model": self.model, "max_tokens": 24, "temperature": 0} | fields
        return self.client.completions.create(prompt=prompt, **fields)

    def post(self, path, body):
        data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())


def models(check, api):
    with check("models: the list and one of it"):
        [entry] = api.client.models.list().data
        equal(api.client.models.retrieve(entry.id).id, entry.id, "id")
        equal(entry.object, "model", "object")
        true(isinstance(entry.root, str), f"root is {entry.root!r}")
    with check("models: one that is not there is a NotFoundError"):
        checks.raises(openai.NotFoundError, api.client.models.retrieve, "nobody")


def whole(check, api):
    with check("completion: text, finish reason, usage"):
        answer = api.ask()
        [choice] = answer.choices
        true(choice.text and choice.finish_reason in ("stop", "length"), f"choice {choice!r}")
        usage = answer.usage
        equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")
        true(answer.id.startswith("cmpl-"), f"id {answer.id}")
        equal(answer.object, "text_completion", "object")
    with check("completion: greedy twice, seeded twice"):
        equal(api.ask().choices[0].text, api.ask().choices[0].text, "greedy")
        seeded = [api.ask(temperature=0.9, seed=7).choices[0].text for _ in range(2)]
        equal(seeded[0], seeded[1], "seeded")
    with check("completion: n"):
        choices = api.ask(n=3, temperature=1.0, seed=1).choices
        equal([choice.index for choice in choices], [0, 1, 2], "indices")
        true(len({choice.text for choice in choices}) > 1, "three samples that are all the same")
    with check("completion: a batch of prompts is as each alone"):
        prompts = [PROMPT, "The dog", "One day, a cat"]
        alone = [api.ask(prompt).choices[0].text for prompt in prompts]
        equal([choice.text for choice in api.ask(prompts).choices], alone, "texts")
    with check("completion: a prompt of ids is as its text"):
        ids = api.post("/tokenize", {"prompt": PROMPT})["tokens"]
        equal(api.ask(ids).choices[0].text, api.ask().choices[0].text, "text")
        equal(api.ask([ids, ids]).usage.prompt_tokens, 2 * len(ids), "prompt tokens")
    with check("completion: stop"):
        text = api.ask(max_tokens=40).choices[0].text
        middle = text[len(text) // 2 :][:4]
        stopped = api.ask(max_tokens=40, stop=[middle, "never seen"]).choices[0]
        equal(stopped.text, text[: text.index(middle)], "text")
        equal(stopped.finish_reason, "stop", "finish reason")
    with check("completion: ignore_eos and max_tokens"):
        answer = api.ask(max_tokens=33, extra_body={"ignore_eos": True})
        equal(answer.usage.completion_tokens, 33, "completion tokens")
        equal(answer.choices[0].finish_reason, "length", "finish reason")
    with check("completion: logit_bias"):
        [forced, *_] = api.post("/tokenize", {"prompt": " dog"})["tokens"]
        text = api.ask(max_tokens=3, logit_bias={str(forced): 100}).choices[0].text
        equal(text, api.post("/detokenize", {"tokens": [forced] * 3})["prompt"], "text")


def logprobs(check, api):
    with check("logprobs: one entry a token, and the most likely"):
        choice = api.ask(logprobs=3, max_tokens=10).choices[0]
        found = choice.logprobs
        equal("".join(found.tokens), choice.text, "tokens")
        for name in ("token_logprobs", "top_logprobs", "text_offset"):
            equal(len(getattr(found, name)), len(found.tokens), name)
        for logprob, top in zip(found.token_logprobs, found.top_logprobs):
            true(logprob <= 0 and 1 <= len(top) <= 4, f"{logprob} beside {top}")
            equal(logprob, max(top.values()), "the logprob of a greedy token")
    with check("logprobs: echo of a prompt, nothing new"):
        answer = api.ask(echo=True, logprobs=1, max_tokens=0)
        found = answer.choices[0].logprobs
        equal(answer.choices[0].text, PROMPT, "text")
        equal("".join(found.tokens), PROMPT, "tokens")
        equal(len(found.tokens), answer.usage.prompt_tokens, "entries")
        equal(found.token_logprobs[0], None, "the first token's logprob")
        true(all(logprob <= 0 for logprob in found.token_logprobs[1:]), f"{found.token_logprobs}")
    with check("logprobs: echo continues the prompt"):
        answer = api.ask(echo=True, logprobs=0, max_tokens=4).choices[0]
        equal(answer.text, PROMPT + api.ask(max_tokens=4).choices[0].text, "text")


def streams(check, api):
    with check("stream: the chunks are the whole, then usage without choices"):
        answer = api.ask(max_tokens=40)
        *chunks, last = api.ask(max_tokens=40, stream=True, stream_options={"include_usage": True})
        equal("".join(chunk.choices[0].text for chunk in chunks), answer.choices[0].text, "text")
        equal(last.choices, [], "choices of the last chunk")
        equal(last.usage.completion_tokens, answer.usage.completion_tokens, "completion tokens")
        reasons = [chunk.choices[0].finish_reason for chunk in chunks]
        equal(reasons[-1], answer.choices[0].finish_reason, "finish reason")
        true(all(reason is None for reason in reasons[:-1]), "a finish reason before the end")
    with check("stream: continuous usage"):
        options = {"include_usage": True, "continuous_usage_stats": True}
        *chunks, last = api.ask(max_tokens=8, stream=True, stream_options=options)
        counts = [chunk.usage.completion_tokens for chunk in chunks]
        true(counts == sorted(counts) and counts[-1] == last.usage.completion_tokens, f"counts {counts}")
    with check("stream: n texts, each in order"):
        texts = {0: "", 1: ""}
        for chunk in api.ask(n=2, temperature=1.0, seed=5, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        equal(texts, dict(enumerate(c.text for c in api.ask(n=2, temperature=1.0, seed=5).choices)), "texts")
    with check("stream: a client that leaves hurts nobody"):
        with api.ask(max_tokens=200, stream=True) as stream:
            next(iter(stream))
        true(api.ask().choices[0].text, "no text")
    with check("stream: an async client, eight at a time"):
        alone = api.ask().choices[0].text
        equal(asyncio.run(eight(api)), [alone] * 8, "texts")


async def eight(api):
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:

        async def one():
            fields = {"model": api.model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
            stream = await client.completions.create(stream=True, **fields)
            return "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])

        return await asyncio.gather(*[one() for _ in range(8)])


def ours(check, api):
    with check("ours: depths, timings, an exit layer by field and by name"):
        answer = api.ask(extra_body={"exit_layer": 12, "return_depths": True})
        depths = answer.choices[0].depths
        equal(len(depths), answer.usage.completion_tokens, "depths")
        true(all(entry["depth"] <= 12 for entry in depths), f"{depths}")
        equal("".join(entry["token"] for entry in depths), answer.choices[0].text, "tokens")
        equal(answer.timings["exit_layer"], 12, "the timings' exit layer")
        equal(api.ask(model=f"{api.model}@12").choices[0].text, answer.choices[0].text, "text of model@12")
    with check("ours: speculation changes nothing"):
        answers = [api.ask(max_tokens=60, extra_body={"speculate": how}) for how in ("off", "auto", "6:4")]
        equal(len({answer.choices[0].text for answer in answers}), 1, "different texts")
    with check("ours: a field that is unknown is named"):
        raw = api.client.completions.with_raw_response.create(
            model=api.model, prompt=PROMPT, max_tokens=1, extra_body={"nonsense": 1}
        )
        equal(raw.headers.get("x-offramp-ignored"), "nonsense", "x-offramp-ignored")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("openai: completions", openai.__version__)
    api = Completions(given.plain)
    for part in (models, whole, logprobs, streams, ours):
        part(check, api)
    check.finish()


if __name__ == "__main__":
    main()
