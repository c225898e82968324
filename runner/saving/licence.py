"""The licence of a model, taken over from its base: from its card, or from the licence's text."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TEXTS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")
"""How files that say what may be done are called; all of them go with the model."""
KNOWN = {
    "apache-2.0": r"Apache License\s+Version 2\.0, January 2004",
    "mit": r"MIT License|Permission is hereby granted, free of charge, to any person obtaining",
    "bsd-3-clause": r"Neither the name of .+ nor the names of its\s+contributors",
    "gpl-3.0": r"GNU GENERAL PUBLIC LICENSE\s+Version 3",
}
"""Words by which the texts of licences are told from each other."""


@dataclass(frozen=True)
class Licence:
    """`id` is the Hub's name of it, None where nobody said; `note` what the card says to people."""

    id: str | None = None
    name: str | None = None
    link: str | None = None
    note: str = ""


def of(base: Path | None) -> Licence:
    """The licence of the base in a folder: as its card says, else by the text that lies there."""
    if base is None:
        return Licence()
    said = _metadata(base / "README.md")
    if isinstance(said.get("license"), str):
        name, link = said.get("license_name"), said.get("license_link")
        note = f"That of the base, as its card says: {said['license']}."
        return Licence(said["license"], _text(name), _text(link), note)
    for path in texts(base):
        found = path.read_text(encoding="utf-8", errors="replace")[:20_000]
        for name, words in KNOWN.items():
            if re.search(words, found):
                note = f"That of the base, by the text in `{path.name}`: {name}."
                return Licence(name, note=note)
    return Licence(note="The base does not say what its licence is.")


def texts(folder: Path) -> Iterator[Path]:
    """The files of a folder that say what may be done."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and any(word in path.name.upper() for word in TEXTS):
            yield path


def carry(base: Path | None, folder: Path) -> None:
    """Put those files beside the model: most licences ask for that."""
    for path in texts(base) if base else ():
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _metadata(card: Path) -> dict[str, Any]:
    """What stands between the first two lines of a card that are `---`."""
    try:
        text = card.read_text(encoding="utf-8")
        found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.S)
        said = yaml.safe_load(found[1]) if found else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return said if isinstance(said, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
