"""Render this repository's chat templates with transformers' apply_chat_template, for the tests to compare with.

    python tests/python/make_chat_goldens.py [FOLDER]

FOLDER (tests/fixtures/chat) holds the templates, *.jinja, written for this repository, and is given goldens.json:
the conversations, and what each template makes of each of them, a text or an error.
"""

import argparse
import json
import tempfile
from datetime import datetime
from pathlib import Path

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
MOMENT = "2024-07-06T09:05:03.004500"
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "image_token": "<image>",
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a place, in °C.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town"},
                "days": {"type": ["integer", "null"]},
                "unit": {"type": "string", "enum": ["°C", "°F"]},
            },
            "required": ["place"],
        },
        "return": {"type": "string"},
    },
}
# A property called "items", as dict's own method is.
SORT = {
    "type": "function",
    "function": {
        "name": "sort",
        "description": "Sorts <items> & \"returns\" them",
        "parameters": {
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "number"}}}},
                "keys": {"type": "array"},
                "options": {},
            },
            "required": ["items"],
        },
    },
}

CONVERSATIONS = {
    "one user": {"messages": [{"role": "user", "content": "Hello."}], "add_generation_prompt": True},
    "system and turns": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "A model."},
            {"role": "user", "content": "  What else?  "},
        ],
        "add_generation_prompt": True,
    },
    "answered": {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two\n"},
            {"role": "user", "content": "Three"},
            {"role": "assistant", "content": "Four five Four."},
        ],
    },
    "odd text": {
        "messages": [
            {"role": "user", "content": "\n <b>\"q\"</b> & 'a' \\ {{ x }} {% y %}\t é 漢字 😀 o'clock\u00a0it's \n"},
            {"role": "assistant", "content": "<think>\nhm, 1 < 2\n</think>\n\nWell…\nHello World 2nd."},
            {"role": "user", "content": "HELLO", "name": "ann"},
        ],
        "add_generation_prompt": True,
    },
    "parts": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": " Look. "}]},
            {
                "role": "user",
                "content": [
                    {"type": "image", "url": "a.png"},
                    {"type": "text", "text": " What is it? "},
                ],
            },
        ],
        "add_generation_prompt": True,
    },
    "tools offered": {
        "messages": [{"role": "user", "content": "Sort the weather."}],
        "tools": [WEATHER, SORT],
        "add_generation_prompt": True,
    },
    "tools called": {
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "Weather in Köln?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "abcdefghi",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": {"place": "Köln", "days": 2, "at": 1.50}},
                    }
                ],
            },
            {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"sky\": \"grey\"}"},
            {"role": "assistant", "content": "Grey."},
            {"role": "user", "content": "Thanks"},
        ],
        "tools": [WEATHER],
        "add_generation_prompt": True,
    },
    "tools in steps": {
        "messages": [
            {"role": "user", "content": "Twice."},
            {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": "two calls",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{\"x\": 1}"}},
                    {"id": "2", "type": "function", "function": {"name": "b", "arguments": {}}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": {"two": [2, None, True]}},
        ],
        "add_generation_prompt": True,
        "arguments": {"enable_thinking": False},
    },
    "reasoned": {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "reasoning": "because", "content": "So."},
        ],
        "arguments": {"enable_thinking": False},
    },
    "assistant first": {
        "messages": [
            {"role": "assistant", "content": "I begin."},
            {"role": "assistant", "content": "And go on."},
        ],
        "add_generation_prompt": True,
    },
    "two systems": {
        "messages": [
            {"role": "system", "content": "One."},
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": "Two."},
        ],
    },
    "empty": {"messages": [{"role": "user", "content": ""}, {"role": "assistant"}]},
    "documents": {
        "messages": [{"role": "user", "content": "What do they say?"}],
        "documents": [
            {"title": "the first day", "text": "It rained.\nAll day."},
            {"text": "Sun  again"},
        ],
        "arguments": {"language": "français", "bos_token": "<begin>", "date_string": "1 May 2021"},
        "add_generation_prompt": True,
    },
    "continued": {
        "messages": [
            {"role": "user", "content": "Count."},
            {"role": "assistant", "content": "One, two, "},
        ],
        "continue_final_message": True,
    },
    "continued parts": {
        "messages": [
            {"role": "user", "content": "Count."},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "One,"}, {"type": "text", "text": "two"}, {"type": "image"}],
            },
        ],
        "continue_final_message": True,
    },
}

PROBE = (
    "{{ messages[0].content }}|{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ video_token }}"
    "|{{ add_bos_token }}|{{ tools is not none }}"
)
ADDED = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
SHORT = {**{key: value for key, value in ADDED.items() if key != "__type"}, "special": True}

# Files of model folders beside their tokenizer.json.
FOLDERS = {
    "a text in the configuration": {
        "tokenizer_config.json": {"chat_template": PROBE, "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True},
    },
    "a file before the configuration": {
        "tokenizer_config.json": {"chat_template": "not this", "bos_token": "<s>"},
        "chat_template.jinja": "file: " + PROBE + "\r\nend\r\n",
    },
    "a list": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "tool_use", "template": "tools: " + PROBE},
                {"name": "default", "template": "default: " + PROBE},
            ],
            "eos_token": "</s>",
        },
    },
    "a list without a default": {
        "tokenizer_config.json": {"chat_template": [{"name": "rag", "template": PROBE}]},
    },
    "more files": {
        "tokenizer_config.json": {"chat_template": "not this"},
        "chat_template.jinja": "default: " + PROBE,
        "additional_chat_templates/tool_use.jinja": "tools: " + PROBE,
        "additional_chat_templates/rag.jinja": "rag",
        "additional_chat_templates/notes.txt": "{% not a template",
    },
    "more files alone": {
        "tokenizer_config.json": {"chat_template": "not this"},
        "additional_chat_templates/tool_use.jinja": "tools: " + PROBE,
    },
    "objects for tokens": {
        "tokenizer_config.json": {
            "chat_template": PROBE,
            "bos_token": {**ADDED, "content": "<s>"},
            "eos_token": {**ADDED, "content": "</s>"},
            "pad_token": None,
            "image_token": "<image>",
        },
    },
    "the older file": {
        "tokenizer_config.json": {"chat_template": PROBE, "bos_token": "<unk>", "pad_token": "<image>"},
        "special_tokens_map.json": {"bos_token": {**SHORT, "content": "<s>"}, "eos_token": "</s>"},
    },
    "the older file, not read": {
        "tokenizer_config.json": {
            "chat_template": PROBE,
            "bos_token": "<s>",
            "added_tokens_decoder": {"0": {**SHORT, "content": "<s>"}},
        },
        "special_tokens_map.json": {"bos_token": "<unk>", "eos_token": "</s>"},
    },
    "named extra tokens": {
        "tokenizer_config.json": {
            "chat_template": PROBE,
            "extra_special_tokens": {"image_token": "<image>", "video_token": "</s>"},
        },
    },
    "no template": {"tokenizer_config.json": {"bos_token": "<s>"}},
    "no configuration": {"chat_template.jinja": PROBE, "special_tokens_map.json": {"bos_token": "<s>"}},
}


class Moment(datetime):
    """What templates are told instead of the time."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(MOMENT)


def tokenizer():
    """One with special tokens and next to no vocabulary."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS.values())}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), **SPECIAL_TOKENS)


def render(made, template, conversation):
    """The text; or the words of raise_exception; or the name of another error."""
    options = {key: value for key, value in conversation.items() if key not in ("messages", "arguments")}
    try:
        text = made.apply_chat_template(
            conversation["messages"],
            chat_template=template,
            tokenize=False,
            **options,
            **conversation.get("arguments", {}),
        )
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"text": text}


def render_folder(files, tools):
    """What a folder's own template makes of one message; null without a template."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer()._tokenizer.save(str(folder / "tokenizer.json"))
        for file, content in files.items():
            path = folder / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
        made = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        if made.chat_template is None:
            return None
        try:
            messages = [{"role": "user", "content": "Hi"}]
            return {"text": made.apply_chat_template(messages, tools=tools, tokenize=False)}
        except ValueError as error:
            return {"error": str(error)}


def encode(folder, template):
    """A conversation's text and ids under one of the tokenizers of tests/fixtures/prompts."""
    made = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    conversation = CONVERSATIONS["system and turns"]["messages"]
    known = {"bos_token": made.bos_token or "", "eos_token": made.eos_token or ""}
    options = {"chat_template": template, "add_generation_prompt": True, **known}
    ids = made.apply_chat_template(conversation, tokenize=True, return_dict=False, **options)
    return {"text": made.apply_chat_template(conversation, tokenize=False, **options), "ids": ids}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parent / "fixtures" / "chat")
    folder = parser.parse_args().folder
    chat_template_utils.datetime = Moment
    made = tokenizer()
    rendered = {}
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        rendered[path.stem] = {name: render(made, template, c) for name, c in CONVERSATIONS.items()}
    goldens = {
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "moment": MOMENT,
        "special_tokens": SPECIAL_TOKENS,
        "conversations": CONVERSATIONS,
        "rendered": rendered,
        "encoded": {
            path.name: {
                name: encode(path, (folder / f"{name}.jinja").read_text(encoding="utf-8"))
                for name in ["chatml", "headers", "inst", "turns"]
            }
            for path in sorted((HERE.parent / "fixtures" / "prompts").iterdir())
        },
        "folders": {
            name: {
                "files": files,
                "plain": render_folder(files, None),
                "with_tools": render_folder(files, [WEATHER]),
            }
            for name, files in FOLDERS.items()
        },
    }
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    (folder / "goldens.json").write_text(text + "\n", encoding="utf-8")
    kinds = [next(iter(answer)) for answers in rendered.values() for answer in answers.values()]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})


if __name__ == "__main__":
    main()
