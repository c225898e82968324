"""A recipe while it is made of another trainer's configuration, and what all trainers say alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Said = Mapping[str, Any]
Recipe = dict[str, Any]
OFF: tuple[Any, ...] = (None, False, "", [], {})
"""Values by which a configuration says nothing."""
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
    sections: dict[str, "Draft"] = field(default_factory=dict)

    def section(self, name: str) -> "Draft":
        """What a configuration says below a name; what of it is taken up counts one by one."""
        found = self.take(name)
        inner = Draft(found if isinstance(found, Mapping) else {}, self.recipe, notes=self.notes)
        self.sections[name] = inner
        return inner

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
    def left(self) -> dict[str, Any]:
        """What has no meaning here, or whose value has none, by name."""
        found = {n: v for n, v in self.said.items() if n not in self.used and v not in OFF}
        for name, inner in self.sections.items():
            found |= {f"{name}.{each}": value for each, value in inner.left.items()}
        return found


def source(place: Any, *, dataset: bool = False) -> Recipe:
    """A source of fetch: a path that is here, else a repository on the Hub."""
    if place is None:
        return {}
    if Path(str(place)).expanduser().exists():
        return {"path": str(Path(str(place)).expanduser().resolve())}
    return {"repo": str(place), **({"type": "dataset"} if dataset else {})}


def adapter(draft: Draft, rank: str, kind: str) -> None:
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


def objective(draft: Draft, name: str) -> None:
    """What is learned; losses of pairs are variants of dpo."""
    kind = name if name in ("sft", "orpo", "kto", "reward", "grpo") else "dpo"
    draft.put("adapt.objective", kind)
    if kind == "dpo" and name != "dpo":
        draft.put("adapt.loss", name)
    draft.put("process.shape", SHAPES.get(kind))


def held_out(draft: Draft, name: str) -> None:
    """Rows held out; a share of them has no meaning here, where their number is told."""
    wanted = draft.said.get(name)
    if isinstance(wanted, int) or (isinstance(wanted, float) and wanted.is_integer()):
        draft.put("process.held_out", int(draft.take(name) or 0))


def training(draft: Draft, rows: str, epochs: str, schedule: str, optimizer: str) -> None:
    """What all say in nearly the same words."""
    at_once, rounds = draft.take(rows), draft.take("gradient_accumulation_steps")
    if at_once or rounds:
        draft.put("adapt.effective_batch_size", int(at_once or 1) * int(rounds or 1))
    draft.put("adapt.micro_batch_size", at_once)
    _length(draft, epochs)
    draft.put_one_of("adapt.schedule", schedule, SCHEDULES)
    draft.put_one_of("adapt.optimizer", optimizer, OPTIMIZERS)
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        draft.put(f"adapt.{name}", number(draft.take(name)))
    for name in ("beta1", "beta2", "epsilon"):
        draft.put(f"adapt.{name}", number(draft.take(f"adam_{name}")))
    draft.put("adapt.gradient_checkpointing", draft.take("gradient_checkpointing"))
    draft.put("seed", draft.take("seed"))
    for name, precision in {"bf16": "bfloat16", "fp16": "float16"}.items():
        if draft.said.get(name) in (True, "true"):
            draft.take(name)
            draft.put("adapt.precision", precision)


def _length(draft: Draft, epochs: str) -> None:
    """How long to train, and to warm up: a number of steps wins over epochs and shares."""
    rounds, steps = draft.take(epochs), draft.take("max_steps") or 0
    if steps > 0:
        draft.put("adapt.max_steps", steps)
    else:
        draft.put("adapt.epochs", number(rounds))
    share, steps = draft.take("warmup_ratio"), draft.take("warmup_steps") or 0
    if steps > 0:
        draft.put("adapt.warmup_steps", steps)
    else:
        draft.put("adapt.warmup_ratio", number(share))


def number(value: Any) -> Any:
    """A number, also where YAML 1.1 takes it for a text: 2e-4."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:  # composing says what is wrong with it
        return value


def several(draft: Draft, given: Iterable[Recipe]) -> list[str]:
    """Name the sources of the data, and read all of them where there are several."""
    listed = list(given)
    names = ["data"] if len(listed) == 1 else [f"data{n}" for n in range(1, len(listed) + 1)]
    for name, each in zip(names, listed, strict=True):
        draft.put(f"fetch.{name}", each)
    if len(names) > 1:
        draft.put("process.data", [f"fetch.{name}" for name in names])
    return names
