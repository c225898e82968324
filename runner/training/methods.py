"""Which of a model's weights are trained: adapters put on, written, and read back."""

import json
from pathlib import Path
from typing import Any

from runner.errors import StepError
from runner.training import objectives
from runner.training.settings import Options


def attach(model: Any, options: Options) -> Any:
    """The model with a new adapter on it; StepError where a layer that is named is not there."""
    from peft import LoraConfig, get_peft_model

    targets = options.target_modules
    config = LoraConfig(
        task_type=objectives.task_type(options),
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise StepError(f"target_modules: {error}") from error


def write(model: Any, folder: Path) -> None:
    """Write the adapter alone, the same bytes on every machine and in every store."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card names local paths
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(base: Any, folder: Path) -> Any:
    """The adapter of a folder on its base again."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, folder, low_cpu_mem_usage=False)
