"""A tokenizer as llama.cpp reads it: tokens, their types, merges, and what marks start and end."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError
from runner.gguf import splitting

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens (`gguf.TokenType`)."""
SPACE = "\u2581"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What is written of a tokenizer, token by token and over all.

    model   "gpt2" for bytewise merges, "llama" for merges of pieces (SentencePiece)
    cuts    how text is cut before (`tokenizer.ggml.pre`)
    scores  which piece is merged first, the highest; none where merges say it
    marks   special tokens by llama.cpp's name
    adds    whether a start, an end and a space are put around a text
    templates  of chats, by name; () is the usual one
    """

    model: str
    cuts: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float] = field(default_factory=list)
    marks: Mapping[str, int]
    adds: Mapping[str, bool]
    templates: Mapping[tuple[str, ...], str]

    def add_to(self, writer: Any) -> None:
        """Write it (llama.cpp: `gguf-py/gguf/constants.py`, `Keys.Tokenizer`)."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.cuts)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_scores(self.scores)
        writer.add_token_merges(self.merges)
        for mark, number in self.marks.items():
            getattr(writer, f"add_{mark}_token_id")(number)
        for what, added in self.adds.items():
            getattr(writer, f"add_add_{what}")(added)
        for name, template in self.templates.items():
            writer.add_string(".".join(["tokenizer.chat_template", *name]), template)
        if named := sorted(name[0] for name in self.templates if name):
            writer.add_array("tokenizer.chat_templates", named)


def read(folder: Path, size: int, note: Callable[[str], None]) -> Vocabulary:
    """The tokenizer of a model of `size` tokens. StepError where llama.cpp has none such."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        raise StepError(f"a GGUF file holds the tokenizer too; {folder} has no tokenizer.json.")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    if inner["model"]["type"] != "BPE":
        raise StepError(f"llama.cpp has no tokenizer such as this one ({inner['model']['type']}).")
    if (needed := 1 + max(tokenizer.get_vocab().values())) > size:
        raise StepError(f"the tokenizer has {needed} tokens, the model only {size}.")
    for difference in splitting.differences(inner):
        note(difference)
    bytewise = splitting.is_bytewise(inner)
    pairs = [pair for pair in inner["model"]["merges"] if not any(" " in part for part in pair)]
    tokens, types = _tokens(tokenizer, inner, size)
    adds = _added(tokenizer)
    return Vocabulary(
        model="gpt2" if bytewise else "llama",
        cuts=splitting.name(inner) if bytewise else "default",
        tokens=tokens,
        types=types,
        merges=[" ".join(pair) for pair in pairs],
        scores=[] if bytewise else _scores(tokens, inner["model"]["merges"]),
        marks=_marks(tokenizer, folder),
        adds=adds if bytewise else adds | {"space_prefix": splitting.has_prefix(inner)},
        templates=_templates(tokenizer.chat_template),
    )


def _tokens(tokenizer: Any, inner: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embeddings; rows without a token get a name."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [UNUSED] * size
    for text, number in inner["model"]["vocab"].items():
        tokens[number], types[number] = text, NORMAL
    if not splitting.is_bytewise(inner):
        _mark_bytes(tokens, types)
        if tokenizer.unk_token_id is not None:
            types[tokenizer.unk_token_id] = UNKNOWN
    for number, added in tokenizer.added_tokens_decoder.items():
        if types[number] != UNKNOWN:
            types[number] = CONTROL if added.special else USER_DEFINED
        tokens[number] = _shown(added.content, types[number])
    return tokens, types


def _shown(text: str, kind: int) -> str:
    """Text as llama.cpp looks for it: before it has written spaces as U+2581."""
    return text.replace(SPACE, " ") if kind == USER_DEFINED else text


def _mark_bytes(tokens: list[str], types: list[int]) -> None:
    """Find the tokens that stand for one byte each, for what no piece covers."""
    numbers = {text: number for number, text in enumerate(tokens)}
    for byte in range(256):
        if (number := numbers.get(f"<0x{byte:02X}>")) is not None:
            types[number] = BYTE


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """The earlier a piece is merged, the higher; what is not merged comes last."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _added(tokenizer: Any) -> dict[str, bool]:
    """Whether a start and an end are put around a text, as the tokenizer does it."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    starts, ends = whole[:1] == [tokenizer.bos_token_id], whole[-1:] == [tokenizer.eos_token_id]
    wanted = [tokenizer.bos_token_id] * starts + plain + [tokenizer.eos_token_id] * ends
    if whole != wanted:
        raise StepError("the tokenizer puts more around a text than a start and an end.")
    return {"bos_token": starts, "eos_token": ends}


def _marks(tokenizer: Any, folder: Path) -> dict[str, int]:
    """Special tokens by llama.cpp's name, and what else ends an answer.

    Without an end, llama.cpp would take the token number 11 for it: StepError.
    """
    ends = list(dict.fromkeys(_ends(tokenizer, folder)))
    if not ends:
        raise StepError("nothing says which token ends a text; llama.cpp would take number 11.")
    marks = dict(zip(("eos", "eot", "eom"), ends, strict=False))
    for mark in ("bos", "unk", "pad"):
        if (number := getattr(tokenizer, f"{mark}_token_id")) is not None:
            marks[mark] = number
    return marks


def _ends(tokenizer: Any, folder: Path) -> Iterator[int]:
    """The end that the tokenizer names, then those at which generating stops."""
    if tokenizer.eos_token_id is not None:
        yield tokenizer.eos_token_id
    found = (files.read_json(folder / "generation_config.json") or {}).get("eos_token_id")
    yield from found if isinstance(found, list) else [found] if found is not None else []


def _templates(template: str | dict[str, str] | None) -> dict[tuple[str, ...], str]:
    """Chat templates by name, in the order of their names: GGUFWriter's own order changes."""
    named = template if isinstance(template, dict) else {"default": template}
    return {
        () if name == "default" else (name,): text for name, text in sorted(named.items()) if text
    }
