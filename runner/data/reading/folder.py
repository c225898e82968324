"""Which files of a folder are data, and of which split."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.data.reading.lines import format_of
from runner.data.reading.read import FORMATS
from runner.errors import StepError, did_you_mean, listing

NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_shard = re.compile(r"(?P<split>[\w-]+?)-\d{5}-of-\d{5}\b")
_part_words = {"data", "part", "shard", "file", "output"}

Splits = dict[str, list[Path]]


def files_of(folder: Path, split: str | None = None, config: str | None = None) -> list[Path]:
    """The data files of one split, in a stable order.

    The first of these that the folder has says which files are which split: `save_to_disk`, the
    `configs` in the README of a Hub dataset (`config` names one of several), the files' names.
    A file whose name says no split is training data. Where no split is asked for it is `train`,
    or the only one there is.
    """
    splits = _saved(folder) or _configured(folder, config) or _by_name(folder)
    wanted = _wanted(splits, split)
    if not splits[wanted]:
        raise StepError(
            f'the files that README.md names for the split "{wanted}" are not there.',
            "Does the fetch step leave them out? See its include and exclude.",
        )
    return splits[wanted]


def _wanted(splits: Splits, asked: str | None) -> str:
    """The split to take: the one asked for, under any of its usual names, or the obvious one."""
    if asked is None and "train" not in splits and len(splits) > 1:
        raise StepError(
            f"the data has the splits {listing(sorted(splits))}, and none is called train.",
            f"Choose one: process.split={min(splits)}",
        )
    if asked is None:
        return "train" if "train" in splits else next(iter(splits))
    usual = [name for name, words in SPLIT_WORDS.items() if asked in words]
    for name in (asked, *usual):
        if name in splits:
            return name
    guess = did_you_mean(asked, splits) or f"It has: {listing(sorted(splits))}."
    raise StepError(f'the data has no split "{asked}". {guess}')


def _saved(folder: Path) -> Splits:
    """The splits of what `save_to_disk` of the datasets library wrote."""
    if (folder / "dataset_dict.json").is_file():
        names = _facts(folder / "dataset_dict.json").get("splits", [])
        return {name: _shards(folder / name) for name in names}
    if (folder / "state.json").is_file():
        return {"train": _shards(folder)}
    return {}


def _shards(folder: Path) -> list[Path]:
    names = [str(each["filename"]) for each in _facts(folder / "state.json")["_data_files"]]
    for name in names:
        if not (folder / name).is_file():
            raise StepError(f"state.json names {name}, which is not there.", "Fetch it again.")
    return [folder / name for name in names]


def _facts(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StepError(f"{path.name}: cannot be read ({error}).", "Fetch it again.") from None


def _configured(folder: Path, wanted: str | None) -> Splits:
    """The splits that a Hub dataset's README.md names."""
    configs = {str(each.get("config_name", "default")): each for each in _configs(folder)}
    if wanted is None and not configs:
        return {}
    config = configs[_config_name(configs, wanted)]
    base = _below(folder, str(config.get("data_dir") or "."))
    named = _patterns(config.get("data_files"))
    if not named:
        return _by_name(base)
    return {split: _matching(base, patterns) for split, patterns in named.items()}


def _config_name(configs: Mapping[str, Any], wanted: str | None) -> str:
    if wanted in configs:
        return str(wanted)
    if wanted is not None:
        guess = did_you_mean(wanted, configs) or f"It has: {listing(list(configs))}."
        raise StepError(f'the data has no configuration "{wanted}". {guess}')
    marked = [name for name, each in configs.items() if each.get("default") or name == "default"]
    if not marked and len(configs) > 1:
        raise StepError(
            f"the data has the configurations {listing(list(configs))}, and no default.",
            f"Choose one: process.config={next(iter(configs))}",
        )
    return (marked or list(configs))[0]


def _configs(folder: Path) -> list[dict[str, Any]]:
    """What the head of README.md says about data files."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8-sig")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return []  # a README is for people first: one that says nothing here is no error
    configs = head.get("configs") if isinstance(head, dict) else None
    items = configs if isinstance(configs, list) else []
    named = [each for each in items if isinstance(each, dict)]
    return [each for each in named if "data_files" in each or "data_dir" in each]


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Patterns by split, from each of the forms in which a README may give them."""
    items = data_files if isinstance(data_files, list) else [data_files] if data_files else []
    found: dict[str, list[str]] = {}
    for item in items:
        if isinstance(item, dict) and "path" in item:
            item = {str(item.get("split", "train")): item["path"]}
        for split, paths in (item if isinstance(item, dict) else {"train": item}).items():
            several = paths if isinstance(paths, list) else [paths]
            found.setdefault(str(split), []).extend(map(str, several))
    return found


def _matching(base: Path, patterns: list[str]) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        _below(base, pattern)
        plain = pattern.removeprefix("./").removesuffix("/")
        for path in sorted([*base.glob(plain), *base.glob(f"{plain}/**/*")]):
            if path.is_file() and format_of(path) in FORMATS:
                found.setdefault(path)
    return list(found)


def _below(folder: Path, name: str) -> Path:
    """A path that the README names, which must stay inside the folder."""
    if "://" in name or name.startswith("/") or ".." in Path(name).parts:
        raise StepError(f"README.md names data outside of its folder: {name}")
    return folder / name


def _by_name(folder: Path) -> Splits:
    """Splits by the words in the files' names; texts count where there is nothing else."""
    paths = [path for path in sorted(folder.rglob("*")) if _is_data(path, folder)]
    tables = [path for path in paths if format_of(path) != ".txt"]
    splits: Splits = {}
    for path in tables or paths:
        splits.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if not splits:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        shown = [*names[:8], *(["..."] if len(names) > 8 else [])]
        raise StepError(
            f"there is no data file; the folder holds {listing(shown)}.",
            f"Data files end in {listing(list(FORMATS))} (and .gz or .zst after a text format).",
        )
    _refuse_copies(tables)
    return splits


def _is_data(path: Path, folder: Path) -> bool:
    within = path.relative_to(folder)
    hidden = any(part.startswith((".", "__")) for part in within.parts)
    return (
        format_of(path) in FORMATS and path.name not in NOT_DATA and not hidden and path.is_file()
    )


def _split_of(path: Path) -> str:
    """The split that a file's name says, or else its folders' from the inmost out."""
    for word in (path.name.lower(), *reversed([part.lower() for part in path.parts[:-1]])):
        if (match := _shard.match(word)) and match["split"] not in _part_words:
            return match["split"]
        parts = set(re.split(r"[-._ 0-9]+", word))
        for split, words in SPLIT_WORDS.items():
            if parts & set(words):
                return split
    return "train"


def _refuse_copies(paths: Sequence[Path]) -> None:
    """The same name in two formats is most likely the same rows twice."""
    stems: dict[Path, Path] = {}
    for path in paths:
        other = stems.setdefault(path.parent / path.name.split(".")[0], path)
        if format_of(other) != format_of(path):
            raise StepError(
                f"{other.name} and {path.name} look like the same rows in two formats.",
                f'Keep one, or leave one out where the data is fetched: exclude: ["{path.name}"]',
            )
