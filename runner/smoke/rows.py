"""Eight rows: the first ones of data that is here, or invented ones of the shape that is wanted."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from runner.data.reading.folder import files_of
from runner.data.reading.lines import BadRow
from runner.data.reading.read import read
from runner.smoke.sizes import ROWS

Row = dict[str, Any]
OF_OBJECTIVE = {"dpo": "preference", "orpo": "preference", "reward": "preference"} | {
    "kto": "unpaired"
}
"""The shape that an objective learns from, where the recipe leaves it to the columns."""


def first_of(place: Path, split: str | None) -> list[Row]:
    """The first rows of a file or a folder of data; those that cannot be read are left out."""
    paths = files_of(place, split) if place.is_dir() else [place]
    root = place if place.is_dir() else place.parent
    every = (row for path in paths for _, row in read(path, root))
    return list(islice((row for row in every if not isinstance(row, BadRow)), ROWS))


def invented(shape: str, columns: Mapping[str, str]) -> list[Row]:
    """Rows of a shape of `process`, under the names that the recipe says its columns have."""
    made = MAKERS.get(shape, _messages)
    rows = (made(number) for number in range(ROWS))
    return [{columns.get(name, name): value for name, value in row.items()} for row in rows]


def write(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def _question(number: int) -> str:
    return f"What is {number} plus {number + 1}?"


def _answer(number: int) -> str:
    return f"{number} plus {number + 1} is {2 * number + 1}."


def _said(role: str, text: str) -> Row:
    return {"role": role, "content": text}


def _messages(number: int) -> Row:
    return {"messages": [_said("user", _question(number)), _said("assistant", _answer(number))]}


def _sharegpt(number: int) -> Row:
    turns = [("human", _question(number)), ("gpt", _answer(number))]
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def _alpaca(number: int) -> Row:
    return {"instruction": _question(number), "input": "", "output": _answer(number)}


def _prompt_completion(number: int) -> Row:
    return {"prompt": _question(number), "completion": " " + _answer(number)}


def _question_answer(number: int) -> Row:
    return {"question": _question(number), "answer": _answer(number)}


def _text(number: int) -> Row:
    return {"text": f"{_question(number)} {_answer(number)}"}


def _tokens(number: int) -> Row:
    return {"input_ids": [number + at for at in range(32)]}


def _preference(number: int) -> Row:
    question = _said("user", _question(number))
    return {
        "chosen": [question, _said("assistant", _answer(number))],
        "rejected": [question, _said("assistant", f"It is {number}.")],
    }


def _unpaired(number: int) -> Row:
    good = number % 2 == 0
    completion = [_said("assistant", _answer(number) if good else "I do not know.")]
    return {"prompt": [_said("user", _question(number))], "completion": completion, "label": good}


MAKERS = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "question_answer": _question_answer,
    "text": _text,
    "tokens": _tokens,
    "preference": _preference,
    "unpaired": _unpaired,
}
