"""Kinds of models whose configuration may be out of reach: what they are, and how they are asked.

Only where a model's own files are neither here nor to be had; what is used then is said. The
architecture is transformers' own configuration of that kind, and the template has the marks and
the order of the family's, not its every case.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

CHATML = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """\
<|begin_of_text|>{% for message in messages %}\
<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
MISTRAL = """\
<s>{% for message in messages %}{% if message['role'] == 'assistant' %} \
{{ message['content'] }}</s>{% else %}[INST] {{ message['content'] }}[/INST]{% endif %}\
{% endfor %}"""
GEMMA = """\
<bos>{% for message in messages %}<start_of_turn>\
{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""


@dataclass(frozen=True)
class Family:
    """A kind of model by transformers' name, a chat template, and the marks in it.

    `begins` and `ends` are the first token of a text and the one that ends an answer.
    """

    kind: str
    template: str
    begins: str
    ends: str
    marks: tuple[str, ...] = ()


_CHATML = ("<|im_start|>", "<|im_end|>")
_LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"))
_GEMMA = ("<bos>", "<end_of_turn>", ("<start_of_turn>",))

FAMILIES: Mapping[str, Family] = {
    r"smollm2": Family("llama", CHATML, *_CHATML),
    r"qwen2": Family("qwen2", CHATML, *_CHATML),
    r"qwen3": Family("qwen3", CHATML, *_CHATML),
    r"llama-?3": Family("llama", LLAMA3, *_LLAMA3),
    r"mistral": Family("mistral", MISTRAL, "<s>", "</s>", ("[INST]", "[/INST]")),
    r"gemma-?2": Family("gemma2", GEMMA, *_GEMMA),
    r"gemma-?3": Family("gemma3_text", GEMMA, *_GEMMA),
}
"""By what the name of a repository or a wheel has in it."""


def of(name: str) -> Family | None:
    """The family of a model's name; None where it is not known here."""
    found = (family for words, family in FAMILIES.items() if re.search(words, name.lower()))
    return next(found, None)
