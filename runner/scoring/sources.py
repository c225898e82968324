"""What of a measure stands in the user's own files, and what a key says of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner import files
from runner.errors import StepError
from runner.options import option
from runner.scoring import judging

judge = judging.source


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of lm-evaluation-harness, whose data lies in local files."""

    path: str = option(
        help="A task file (YAML) of the harness; its dataset_kwargs.data_files are beside it",
        keyed=False,
    )
    limit: int | None = option(None, "Only the first rows", at_least=1)
    source: str | None = option(None, "blake3 of the file and its data, found where left out")


def task(task: Task) -> str:
    """The digest of a task file and of the data that it names."""
    config = read(Path(task.path))
    data = {name: files.digest(Path(name)) for name in sorted(_data(config))}
    listed = [files.digest(Path(task.path)), sorted(data.values())]
    return files.digest_json(listed)


def read(path: Path) -> dict[str, Any]:
    """A task file as a mapping, its data files by whole paths; StepError where it is none.

    What would run code (`!function`) or lead elsewhere (`include`) is refused, so that the file and
    its data are all there is to it.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise StepError(f"{path} is no task file that can be read: {said}") from error
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise StepError(f"{path} is no task file: it must be a mapping with `task: name`.")
    if "include" in config:
        raise StepError(f"{path} includes another file; write it out whole.")
    given = config.get("dataset_kwargs") or {}
    found = given.get("data_files")
    if not isinstance(found, dict) or not found:
        fact = "names no data files, and only local data is used."
        raise StepError(
            f"{path} {fact}",
            "Write in it: dataset_path: json and dataset_kwargs: {data_files: {test: rows.jsonl}}",
        )
    whole = {split: _placed(names, path.parent) for split, names in found.items()}
    return {**config, "dataset_kwargs": {**given, "data_files": whole}}


def _placed(names: Any, folder: Path) -> list[str]:
    listed = names if isinstance(names, list) else [names]
    found = [folder / str(name) for name in listed]
    for each in found:
        if not each.is_file():
            raise StepError(f"{each} does not exist.")
    return [str(each) for each in found]


def _data(config: dict[str, Any]) -> list[str]:
    return [name for names in config["dataset_kwargs"]["data_files"].values() for name in names]
