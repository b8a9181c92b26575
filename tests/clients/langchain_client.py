"""LangChain's OpenAI and ChatOpenAI (`langchain-openai`): invoke, stream, batch, structured output, tools."""

import asyncio
import importlib.metadata

import langchain_core.messages
import langchain_core.tools
import langchain_openai
import pydantic

import checks
from checks import equal, true

PROMPT = "Once upon a time, there was a little girl named"


class Toy(pydantic.BaseModel):
    """A toy."""

    model_config = pydantic.ConfigDict(extra="forbid")
    big: bool
    count: int = pydantic.Field(ge=0, le=9)


@langchain_core.tools.tool
def weather(day: str) -> str:
    """The weather of a day."""
    return f"rain on {day}"


def completions(check, model):
    with check("OpenAI: invoke"):
        text = model.invoke(PROMPT)
        true(isinstance(text, str) and text, f"text {text!r}")
        equal(model.invoke(PROMPT), text, "greedy twice")
    with check("OpenAI: the stream is the whole"):
        equal("".join(model.stream(PROMPT)), model.invoke(PROMPT), "text")
    with check("OpenAI: batch, in order"):
        prompts = [PROMPT, "The dog", "One day"]
        equal(model.batch(prompts), [model.invoke(prompt) for prompt in prompts], "texts")
    with check("OpenAI: generate counts tokens"):
        usage = model.generate([PROMPT]).llm_output["token_usage"]
        equal(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"], "total tokens")
    with check("OpenAI: stop"):
        text = model.invoke(PROMPT)
        middle = text[len(text) // 2 :][:4]
        equal(model.invoke(PROMPT, stop=[middle]), text[: text.index(middle)], "text")


def chat(check, model):
    messages = [("system", "Tell a story."), ("human", "A dog and a ball, please.")]
    with check("ChatOpenAI: invoke, with usage"):
        answer = model.invoke(messages)
        true(isinstance(answer.content, str) and answer.content, f"content {answer.content!r}")
        usage = answer.usage_metadata
        equal(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"], "total tokens")
    with check("ChatOpenAI: the stream is the whole, with usage"):
        chunks = list(model.stream(messages, stream_usage=True))
        equal("".join(chunk.content for chunk in chunks), model.invoke(messages).content, "text")
        true(any(chunk.usage_metadata for chunk in chunks), "no chunk has usage")
    with check("ChatOpenAI: ainvoke"):
        equal(asyncio.run(model.ainvoke(messages)).content, model.invoke(messages).content, "text")
    with check("ChatOpenAI: logprobs"):
        answer = model.bind(logprobs=True, top_logprobs=2).invoke(messages)
        true(answer.response_metadata["logprobs"]["content"], "no logprobs")
    with check("ChatOpenAI: structured output"):
        structured = model.with_structured_output(Toy, method="json_schema", strict=True)
        true(isinstance(structured.invoke(messages), Toy), "no toy")
    with check("ChatOpenAI: tools are offered, and their results told"):
        offering = model.bind_tools([weather])
        answer = offering.invoke(messages)
        true(answer.content or answer.tool_calls, f"{answer!r}")
        call = {"name": "weather", "args": {"day": "today"}, "id": "call12345"}
        told = [langchain_core.messages.HumanMessage("The weather?")]
        told += [langchain_core.messages.AIMessage("", tool_calls=[call])]
        told += [langchain_core.messages.ToolMessage("rain", tool_call_id="call12345")]
        true(offering.invoke(told) is not None, "no answer")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("langchain-openai", importlib.metadata.version("langchain-openai"))
    common = {"api_key": "none", "max_tokens": 32, "temperature": 0, "max_retries": 0, "timeout": 60}
    completions(check, langchain_openai.OpenAI(base_url=f"{given.plain}/v1", model="tinystories-24", **common))
    if given.chat:
        name = chat_model_name(given.chat)
        chat(check, langchain_openai.ChatOpenAI(base_url=f"{given.chat}/v1", model=name, **common))
    check.finish()


def chat_model_name(url):
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id


if __name__ == "__main__":
    main()
