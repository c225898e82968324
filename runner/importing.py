"""Recipes from the configurations of other trainers: what has a meaning here, and what has not."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Problem, RecipeError

Said = Mapping[str, Any]
Recipe = dict[str, Any]
STEPS = ["fetch", "process", "load", "adapt", "save"]
OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "lion_32bit": "lion",
    "lion_8bit": "lion_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse_sqrt",
    "warmup_stable_decay": "warmup_stable_decay",
}
ATTENTION = {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager", "auto": "auto"}
SHAPES = {"dpo": "preference", "orpo": "preference", "reward": "preference", "kto": "unpaired"}


@dataclass
class Draft:
    """A recipe while it is made; what was asked for and taken up is in `used`."""

    said: Said
    recipe: Recipe = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def take(self, name: str) -> Any:
        """What a configuration says under a name, which counts as taken up; None if nothing."""
        if self.said.get(name) is not None:
            self.used.add(name)
        return self.said.get(name)

    def put(self, place: str, value: Any) -> None:
        """Set an option of the recipe, `adapt.rank`; None is left out."""
        if value is not None:
            *above, last = place.split(".")
            here = self.recipe
            for name in above:
                here = here.setdefault(name, {})
            here[last] = value

    def put_one_of(self, place: str, name: str, known: Mapping[str, str]) -> None:
        """Set an option by a table; a word that is not in it is left to be listed."""
        if str(self.said.get(name)) in known:
            self.put(place, known[str(self.take(name))])

    @property
    def left(self) -> list[str]:
        """The names that have no meaning here, or whose value has none."""
        off: tuple[Any, ...] = (None, False, "", [])
        return [n for n, value in self.said.items() if n not in self.used and value not in off]


def read(path: Path) -> Draft:
    """The recipe that a configuration of axolotl or LLaMA-Factory asks for."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError([Problem(str(path), f"cannot be read: {error.strerror}.")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError([Problem(str(path), f"is not valid YAML: {error}.")]) from error
    for mark, translate in TRANSLATORS.items():
        if isinstance(said, dict) and mark in said:
            draft = Draft(said)
            translate(draft)
            return draft
    fact = "is a configuration of neither axolotl (base_model) nor LLaMA-Factory"
    raise RecipeError([Problem(str(path), f"{fact} (model_name_or_path).")])


def text(draft: Draft, source: str, run: str, name: str) -> str:
    """The recipe as YAML; what has no meaning here stands at its top."""
    head = [f"# From {source}.", f"# Run:   runner run {run}"]
    head += ["# Has no meaning here: " + each for each in draft.left]
    head += [f"# {note}" for note in draft.notes]
    recipe = {"name": name, "steps": STEPS, **draft.recipe}
    recipe.setdefault("save", {}).setdefault("to", f"models/{name}")
    return "\n".join(head) + "\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _axolotl(draft: Draft) -> None:
    draft.put("fetch.model", _source(draft.take("base_model")))
    draft.put("fetch.model.revision", draft.take("revision_of_model"))
    _axolotl_data(draft)
    _adapter(draft, rank="lora_r", kind=draft.take("adapter") or "full")
    if draft.take("lora_target_linear"):
        draft.put("adapt.target_modules", "auto")
    if draft.said.get("rl") in ("dpo", "ipo", "orpo", "kto"):
        _objective(draft, str(draft.take("rl")))
    draft.put("process.max_length", draft.take("sequence_len"))
    draft.put("process.pack", draft.take("sample_packing"))
    draft.put("process.train_on", "all" if draft.take("train_on_inputs") else None)
    _held_out(draft, "val_set_size")
    _training(draft, "micro_batch_size", "num_epochs", "lr_scheduler", "optimizer")
    draft.put("adapt.patience", draft.take("early_stopping_patience"))
    if draft.take("flash_attention"):
        draft.put("load.attention", "flash_attention_2")
    draft.put("save.to", draft.take("output_dir"))


def _axolotl_data(draft: Draft) -> None:
    shapes = {"alpaca": "alpaca", "completion": "text", "sharegpt": "sharegpt"}
    listed = draft.take("datasets") or []
    for number, each in enumerate(listed, start=1):
        name = "data" if len(listed) == 1 else f"data{number}"
        given = {"path": each} if isinstance(each, str) else dict(each)
        draft.put(f"fetch.{name}", _source(given.pop("path", None), dataset=True))
        if draft.said.get("rl") is None and given.get("type") in shapes:
            draft.put("process.shape", shapes[given.pop("type")])
        elif given.get("type") == "chat_template":
            given.pop("type")
        if "split" in given:
            draft.put("process.split", given.pop("split"))
        draft.notes += [f"Not taken up of datasets: {key}: {given[key]}" for key in given]
    if len(listed) > 1:
        draft.put("process.data", [f"fetch.data{n + 1}" for n in range(len(listed))])


def _llama_factory(draft: Draft) -> None:
    draft.put("fetch.model", _source(draft.take("model_name_or_path")))
    draft.put("fetch.model.revision", draft.take("model_revision"))
    names = str(draft.take("dataset") or "")
    draft.put("fetch.data", _source(names, dataset=True) if "/" in names else {"path": names})
    draft.notes.append("LLaMA-Factory looks data sets up in dataset_info.json: check fetch.data.")
    bits = {4: "nf4", 8: "int8"}.get(draft.said.get("quantization_bit", 0))
    kind = draft.take("finetuning_type") or "lora"
    if bits and kind == "lora":
        draft.take("quantization_bit")
        kind = "qlora"
        draft.put("adapt.base", bits)
    _adapter(draft, rank="lora_rank", kind=str(kind))
    _lora_target(draft)
    stage = {"rm": "reward", "sft": "sft", "dpo": str(draft.said.get("pref_loss", "sigmoid"))}
    stage["kto"] = "kto"
    if draft.said.get("stage") in stage:
        _objective(draft, stage[str(draft.take("stage"))])
        draft.take("pref_loss")
    draft.put("adapt.beta", draft.take("pref_beta"))
    draft.put("process.max_length", draft.take("cutoff_len"))
    draft.put("process.first", draft.take("max_samples"))
    draft.put("process.pack", draft.take("packing"))
    draft.put("process.train_on", "all" if draft.take("train_on_prompt") else None)
    _held_out(draft, "val_size")
    length = ("per_device_train_batch_size", "num_train_epochs")
    _training(draft, *length, "lr_scheduler_type", "optim")
    draft.put_one_of("load.attention", "flash_attn", ATTENTION)
    draft.put("adapt.kernels", "liger" if draft.take("enable_liger_kernel") else None)
    draft.put("save.to", draft.take("output_dir"))
    draft.put("save.overwrite", draft.take("overwrite_output_dir"))


def _lora_target(draft: Draft) -> None:
    target = draft.take("lora_target")
    listed = target if isinstance(target, list) else str(target or "all").split(",")
    named = [str(each).strip() for each in listed]
    draft.put("adapt.target_modules", "auto" if named == ["all"] else named)


def _source(place: Any, *, dataset: bool = False) -> Recipe:
    """A source of fetch: a path that is here, else a repository on the Hub."""
    if place is None:
        return {}
    if Path(str(place)).expanduser().exists():
        return {"path": str(Path(str(place)).expanduser().resolve())}
    return {"repo": str(place), **({"type": "dataset"} if dataset else {})}


def _adapter(draft: Draft, rank: str, kind: str) -> None:
    """The method; a model that is loaded in 8 or 4 bits to be taught is qlora's."""
    if draft.take("load_in_8bit") and kind != "full":
        kind = "qlora"
        draft.put("adapt.base", "int8")
    draft.take("load_in_4bit")
    for name, method in {"use_dora": "dora", "use_rslora": "rslora"}.items():
        given = draft.take(name) or draft.take(f"peft_{name}")
        kind = method if given and kind == "lora" else kind
    draft.put("adapt.method", kind)
    if kind == "full":
        return
    draft.put("adapt.rank", draft.take(rank))
    draft.put("adapt.alpha", draft.take("lora_alpha"))
    draft.put("adapt.dropout", draft.take("lora_dropout"))
    draft.put("adapt.target_modules", draft.take("lora_target_modules"))


def _objective(draft: Draft, name: str) -> None:
    """What is learned; losses of pairs are variants of dpo."""
    objective = name if name in ("sft", "orpo", "kto", "reward") else "dpo"
    draft.put("adapt.objective", objective)
    if objective == "dpo" and name != "dpo":
        draft.put("adapt.loss", name)
    draft.put("process.shape", SHAPES.get(objective))


def _held_out(draft: Draft, name: str) -> None:
    """Rows held out; a share of them has no meaning here, where their number is told."""
    wanted = draft.said.get(name)
    if isinstance(wanted, int) or (isinstance(wanted, float) and wanted.is_integer()):
        draft.put("process.held_out", int(draft.take(name) or 0))


def _training(draft: Draft, rows: str, epochs: str, schedule: str, optimizer: str) -> None:
    """What both say in nearly the same words."""
    at_once, rounds = draft.take(rows), draft.take("gradient_accumulation_steps")
    if at_once or rounds:
        draft.put("adapt.effective_batch_size", int(at_once or 1) * int(rounds or 1))
    draft.put("adapt.micro_batch_size", at_once)
    draft.put("adapt.epochs", _number(draft.take(epochs)))
    draft.put_one_of("adapt.schedule", schedule, SCHEDULES)
    draft.put_one_of("adapt.optimizer", optimizer, OPTIMIZERS)
    for name in ("learning_rate", "weight_decay", "warmup_ratio", "max_grad_norm"):
        draft.put(f"adapt.{name}", _number(draft.take(name)))
    for name in ("max_steps", "warmup_steps", "gradient_checkpointing"):
        draft.put(f"adapt.{name}", draft.take(name))
    seed = draft.take("seed")
    draft.put("seed", seed)
    for name, precision in {"bf16": "bfloat16", "fp16": "float16"}.items():
        if draft.said.get(name) in (True, "true"):
            draft.take(name)
            draft.put("adapt.precision", precision)


def _number(value: Any) -> Any:
    """A number, also where YAML 1.1 takes it for a text: 2e-4."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:  # composing says what is wrong with it
        return value


def left(draft: Draft) -> Iterator[str]:
    """Everything that was not taken up, a line each."""
    yield from (f"has no meaning here: {name}: {draft.said[name]}" for name in draft.left)
    yield from draft.notes


TRANSLATORS: Mapping[str, Callable[[Draft], None]] = {
    "base_model": _axolotl,
    "model_name_or_path": _llama_factory,
}
"""By the name that only its configurations have."""
