"""What is asked: prompts from the rows held out, from a file, or from the recipe itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runner import files
from runner.answering.settings import Options, of_one_answer
from runner.errors import StepError
from runner.files import digest_json
from runner.products import Dataset


@dataclass(frozen=True)
class Prompt:
    """A question, before it is tokens: a text, or the messages of a conversation so far."""

    text: str
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Any = None
    expected: str | None = None
    example: Mapping[str, Any] | None = None
    """The whole conversation, where the answer that is wanted is its last message."""


@dataclass(frozen=True)
class Request:
    """One answer that is wanted; `number` is its place in the product."""

    number: int
    id: str
    prompt: str
    expected: str | None
    sample: int
    ids: Sequence[int]


def prompts(options: Options, dataset: Dataset | None) -> list[Prompt]:
    """Every prompt in its order; StepError where there is none or one cannot be read."""
    found = list(_prompts(options, dataset))[: options.rows]
    if not found:
        where = options.file or "no rows are held out"
        raise StepError(f"there is nothing to answer: {where}{' is empty' * bool(options.file)}.")
    return found


def requests(options: Options, asked: Sequence[Prompt], tokens: "Tokens") -> list[Request]:
    """Every answer that is wanted: the samples of one prompt stand together.

    An id is a digest of the prompt, the settings and the number of the sample. Of prompts that are
    asked again it also counts how often they were asked before.
    """
    settings, seen, found = of_one_answer(options), dict[str, int](), list[Request]()
    chat = tokens.uses_template(options.chat)
    for each, encoded in zip(asked, tokens.encoded(asked, chat=chat), strict=True):
        ids, expected = encoded
        what = [list(each.messages), each.tools] if chat and each.messages else [each.text]
        known = digest_json([*what, settings])
        times = seen[known] = seen.get(known, -1) + 1
        for sample in range(options.samples):
            parts = [known, sample, *([times] if times else [])]
            ids_with_prefix = [*ids, *tokens.plain(options.prefix)]
            name = digest_json(parts)[:16]
            found.append(Request(len(found), name, each.text, expected, sample, ids_with_prefix))
    return found


class Tokens:
    """Turns prompts into tokens, as training did."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def uses_template(self, wanted: bool | None) -> bool:
        """Whether prompts are conversations; StepError where there is no template for them."""
        has_one = bool(self.tokenizer.chat_template)
        if wanted and not has_one:
            fact = "the tokenizer has no chat template, and chat says that it is asked by one."
            raise StepError(fact, "Leave it out, or ask in plain text: generate.chat=false")
        return has_one if wanted is None else wanted

    def plain(self, text: str) -> list[int]:
        """A text without any special token."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def text(self, ids: Sequence[int]) -> str:
        """What tokens say, those that only steer a model left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def said(self, options: Options, text: str) -> str:
        """An answer, of the text that was generated."""
        whole = options.prefix + text
        return whole.strip() if self.uses_template(options.chat) else whole

    @cached_property
    def stops(self) -> list[int]:
        """The tokens that end an answer."""
        if self.tokenizer.chat_template:
            from runner.data.prompts import Prompts

            return Prompts(self.tokenizer).stops
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [int(eos)]

    def encoded(
        self, asked: Sequence[Prompt], *, chat: bool
    ) -> Iterator[tuple[list[int], str | None]]:
        """The tokens of each prompt, and the answer that is wanted."""
        if not chat:
            for each in asked:
                if each.messages:
                    fact = f'"{each.text[:40]}" is a conversation, and there is no chat template.'
                    raise StepError(fact)
                yield list(self.tokenizer(each.text)["input_ids"]), each.expected
            return
        examples = [each.example for each in asked if each.example]
        known = iter(self._as_trained(examples) if examples else ())
        for each in asked:
            if each.example:
                yield next(known)
            else:
                yield self._rendered(each), each.expected

    def _as_trained(self, examples: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
        from runner.data.prompts import Prompts

        asked = Prompts(self.tokenizer).asked(examples)
        return [(each.prompt_ids, each.expected) for each in asked]

    def _rendered(self, prompt: Prompt) -> list[int]:
        messages = prompt.messages or [{"role": "user", "content": prompt.text}]
        text = self.tokenizer.apply_chat_template(
            list(messages), tools=prompt.tools, add_generation_prompt=True, tokenize=False
        )
        return self.plain(str(text))


def _prompts(options: Options, dataset: Dataset | None) -> Iterator[Prompt]:
    if options.prompts:
        yield from map(Prompt, options.prompts)
    elif options.file:
        yield from _of_file(options)
    elif dataset is not None:
        for row in dataset.conversations():
            yield _conversation(row, None)


def _of_file(options: Options) -> Iterator[Prompt]:
    path = options.file
    assert path is not None
    if files.digest(path) != options.file_digest:
        raise StepError(f"{path} changed while it was read; run again.")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if path.suffix == ".jsonl":
            yield _of_line(line, f"{path}:{number}")
        else:
            yield Prompt(line)


def _of_line(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise StepError(f"{where}: is not valid JSON ({error}).") from error
    expected = row.get("expected") if isinstance(row, dict) else None
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        return Prompt(row["prompt"], tools=row.get("tools"), expected=expected)
    if isinstance(row, dict) and _are_messages(row.get("messages")):
        return _conversation(row, expected)
    raise StepError(f"{where}: needs a `prompt` (a text) or `messages` (with role and content).")


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and {"role", "content"} <= {*m} for m in value)
    )


def _conversation(row: Mapping[str, Any], expected: str | None) -> Prompt:
    """One that ends with the answer that is wanted, or with the question."""
    messages = row["messages"]
    if messages[-1]["role"] != "assistant":
        return Prompt(str(messages[-1]["content"]), messages, row.get("tools"), expected)
    before = messages[:-1]
    text = str(before[-1]["content"]) if before else ""
    return Prompt(text, before, row.get("tools"), expected, row)
