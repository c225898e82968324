"""Checkpoints as auto-gptq wrote them, under names and with settings that transformers opens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner import files
from runner.errors import StepError

CONFIG, OWN_CONFIG = "config.json", "quantize_config.json"
WEIGHTS = "gptq_model-*.safetensors*"
"""Its weights: gptq_model-4bit-128g.safetensors, or parts of that name with an index."""
OWN_SETTINGS = ("is_marlin_format", "model_file_base_name", "model_name_or_path")


def settings(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a folder, with what only quantize_config.json says of quantization.

    StepError for weights in an order that nothing maintained can read.
    """
    said = config.get("quantization_config")
    if said is None and (folder / OWN_CONFIG).exists():
        said = files.read_json(folder / OWN_CONFIG)
    if not isinstance(said, Mapping) or said.get("quant_method", "gptq") != "gptq":
        return config
    if said.get("is_marlin_format") or said.get("checkpoint_format") == "marlin":
        raise StepError(
            f"{folder}: auto-gptq has put its weights into Marlin's order, which nothing reads.",
            "Take the repository that has them in GPTQ's own order.",
        )
    kept = {name: value for name, value in said.items() if name not in OWN_SETTINGS}
    return {**config, "quantization_config": {"quant_method": "gptq", **kept}}


@contextmanager
def renamed(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """A folder that `from_pretrained` opens: the same one, or links under the right names."""
    odd = {path: _name(path) for path in folder.glob(WEIGHTS)}
    if not odd and dict(config) == _read(folder / CONFIG):
        yield folder
        return
    with TemporaryDirectory() as place:
        for path in folder.iterdir():
            (Path(place) / odd.get(path, path.name)).symlink_to(path.resolve())
        (Path(place) / CONFIG).unlink(missing_ok=True)
        files.write_json(Path(place) / CONFIG, config)
        yield Path(place)


def _name(path: Path) -> str:
    """What transformers looks for: one file of weights or an index; parts keep their names."""
    ending = path.name[path.name.index(".safetensors") :]
    is_part = ending == ".safetensors" and "-of-" in path.name
    return path.name if is_part else f"model{ending}"


def _read(path: Path) -> Any:
    return files.read_json(path) if path.exists() else {}
