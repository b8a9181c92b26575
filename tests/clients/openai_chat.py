"""The `openai` package against /v1/chat/completions and /v1/responses: chat, schemas, tools, both kinds of stream."""

import json

import openai
import pydantic

import checks
from checks import equal, true

MESSAGES = [{"role": "system", "content": "Tell a story."}, {"role": "user", "content": "A dog and a ball, please."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {"day": {"type": "string", "enum": ["today", "tomorrow"]}},
            "required": ["day"],
            "additionalProperties": False,
        },
    },
}


class Toy(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    big: bool
    count: int = pydantic.Field(ge=0, le=9)


class Chat:
    def __init__(self, url):
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        self.model = self.client.models.list().data[0].id

    def ask(self, messages=MESSAGES, **fields):
        fields = {"model": self.model, "max_tokens": 24, "temperature": 0} | fields
        return self.client.chat.completions.create(messages=messages, **fields)

    def respond(self, text="A dog and a ball, please.", **fields):
        fields = {"model": self.model, "max_output_tokens": 24, "temperature": 0} | fields
        return self.client.responses.create(input=text, **fields)


def whole(check, api):
    with check("chat: a message, its finish reason, usage"):
        answer = api.ask()
        [choice] = answer.choices
        equal(answer.object, "chat.completion", "object")
        equal(choice.message.role, "assistant", "role")
        true(isinstance(choice.message.content, str), f"content {choice.message.content!r}")
        true(choice.finish_reason in ("stop", "length"), f"finish reason {choice.finish_reason}")
        usage = answer.usage
        equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")
    with check("chat: max_completion_tokens, n, stop"):
        answer = api.ask(n=2, seed=3, temperature=1.0, max_tokens=openai.omit, max_completion_tokens=7)
        equal([choice.index for choice in answer.choices], [0, 1], "indices")
        true(answer.usage.completion_tokens <= 14, f"{answer.usage.completion_tokens} tokens")
        text = api.ask().choices[0].message.content
        middle = text[len(text) // 2 :][:4]
        equal(api.ask(stop=middle).choices[0].message.content, text[: text.index(middle)], "text before the stop")
    with check("chat: content in parts is as a string"):
        parts = [dict(message, content=[{"type": "text", "text": message["content"]}]) for message in MESSAGES]
        equal(api.ask(parts).choices[0].message.content, api.ask().choices[0].message.content, "content")
    with check("chat: a picture is a BadRequestError"):
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        checks.raises(openai.BadRequestError, api.ask, [{"role": "user", "content": [picture]}])
    with check("chat: logprobs"):
        choice = api.ask(logprobs=True, top_logprobs=2, max_tokens=8).choices[0]
        found = choice.logprobs.content
        text = b"".join(bytes(entry.bytes) for entry in found).decode(errors="replace")
        equal(text, choice.message.content, "the tokens' bytes")
        for entry in found:
            equal(len(entry.top_logprobs), 2, "top logprobs")
            equal(entry.logprob, entry.top_logprobs[0].logprob, "the logprob of a greedy token")
    with check("chat: no messages is a BadRequestError"):
        checks.raises(openai.BadRequestError, api.ask, [])


def streams(check, api):
    with check("chat stream: the deltas are the whole, then usage without choices"):
        answer = api.ask()
        *chunks, last = api.ask(stream=True, stream_options={"include_usage": True})
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        equal(text, answer.choices[0].message.content, "text")
        equal(chunks[0].choices[0].delta.role, "assistant", "the first delta's role")
        equal(chunks[-1].choices[0].finish_reason, answer.choices[0].finish_reason, "finish reason")
        equal((last.choices, last.usage.completion_tokens), ([], answer.usage.completion_tokens), "the last chunk")
    with check("chat stream: the package's own helper"):
        fields = {"model": api.model, "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
        with api.client.chat.completions.stream(**fields) as stream:
            texts = [event.content for event in stream if event.type == "content.done"]
        equal(texts, [api.ask().choices[0].message.content], "texts")


def schemas(check, api):
    with check("schema: the reply is parsed into a model"):
        parse = api.client.chat.completions.parse
        answer = parse(model=api.model, messages=MESSAGES, response_format=Toy, max_tokens=64, temperature=0)
        true(isinstance(answer.choices[0].message.parsed, Toy), f"parsed {answer.choices[0]!r}")
    with check("schema: json_object"):
        choice = api.ask(response_format={"type": "json_object"}, max_tokens=60).choices[0]
        if choice.finish_reason == "stop":
            true(isinstance(json.loads(choice.message.content), dict), f"{choice.message.content!r}")
    with check("schema: one that is none is a BadRequestError"):
        wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
        checks.raises(openai.BadRequestError, api.ask, response_format=wrong)


def tools(check, api):
    with check("tools: offered, the reply is text or calls"):
        message = api.ask(tools=[WEATHER]).choices[0].message
        true(message.content is not None or message.tool_calls, f"{message!r}")
    with check("tools: required, a call that fits or a BadRequestError"):
        try:
            choice = api.ask(tools=[WEATHER], tool_choice="required", max_tokens=64).choices[0]
        except openai.BadRequestError as error:
            print(f"       refused: {error.body['message']}")
        else:
            [call, *_] = choice.message.tool_calls
            equal((call.function.name, choice.finish_reason), ("weather", "tool_calls"), "name and finish reason")
            true(isinstance(json.loads(call.function.arguments), dict), f"arguments {call.function.arguments!r}")
    with check("tools: a call and its result in the conversation"):
        call = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": '{"day": "today"}'}}
        told = [{"role": "assistant", "content": None, "tool_calls": [call]}]
        told += [{"role": "tool", "tool_call_id": "call12345", "content": "rain"}]
        true(api.ask(MESSAGES + told, tools=[WEATHER]).choices, "no choices")


def responses(check, api):
    with check("responses: text, status, usage"):
        answer = api.respond()
        true(isinstance(answer.output_text, str) and answer.output_text, f"output text {answer.output_text!r}")
        true(answer.status in ("completed", "incomplete"), f"status {answer.status}")
        usage = answer.usage
        equal(usage.total_tokens, usage.input_tokens + usage.output_tokens, "total tokens")
    with check("responses: items and instructions are a chat's messages"):
        items = [{"role": "user", "content": [{"type": "input_text", "text": MESSAGES[1]["content"]}]}]
        answer = api.respond(items, instructions=MESSAGES[0]["content"])
        equal(answer.output_text, api.ask().choices[0].message.content, "text")
    with check("responses: the stream's deltas are the whole"):
        events = list(api.respond(stream=True))
        kinds = [event.type for event in events]
        equal(kinds[0], "response.created", "the first event")
        true(kinds[-1] in ("response.completed", "response.incomplete"), f"the last event is {kinds[-1]}")
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        equal(deltas, events[-1].response.output_text, "deltas")
        equal(deltas, api.respond().output_text, "text")
    with check("responses: a schema"):
        answer = api.client.responses.parse(
            model=api.model, input="A toy.", text_format=Toy, max_output_tokens=64, temperature=0
        )
        true(isinstance(answer.output_parsed, Toy), f"parsed {answer.output_parsed!r}")
    with check("responses: there is no state, so an earlier response is a BadRequestError"):
        checks.raises(openai.BadRequestError, api.respond, previous_response_id="resp_1")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("openai: chat, responses", openai.__version__)
    plain, api = Chat(given.plain), Chat(given.chat)
    with check("chat: a model without a template is a BadRequestError"):
        error = checks.raises(openai.BadRequestError, plain.ask)
        true("template" in error.body["message"], error.body["message"])
    for part in (whole, streams, schemas, tools, responses):
        part(check, api)
    check.finish()


if __name__ == "__main__":
    main()
