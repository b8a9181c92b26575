"""A chat model for the checks: the carried model's weights under a template with tools. It only tells stories."""

import json
import shutil
from pathlib import Path

# The tool calls of the Hermes and Qwen families, in few words: the context is short.
TEMPLATE = """\
{%- if tools %}tools: <tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools> Call one as <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call>
{% endif %}
{%- for message in messages %}
{{- message.role }}:{% if message.content %} {{ message.content }}{% endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
<tool_call>
{%- set given = call.function.arguments %}
{"name": "{{ call.function.name }}", "arguments": {{ given if given is string else given | tojson }}}
</tool_call>
{%- endfor %}
{%- endif %}
{% endfor %}
{%- if add_generation_prompt %}assistant:{% endif %}"""


def make(carried, folder):
    """Copies the carried model to `folder` and gives it the template. What is there already is replaced."""
    carried, folder = Path(carried), Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(carried / name, folder / name)
    config = json.loads((carried / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}, indent=2))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
