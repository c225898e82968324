"""Recipes from the configurations of Oumi, whose names stand in sections."""

from collections.abc import Mapping
from typing import Any

from runner.importing.draft import (
    OFF,
    Draft,
    Recipe,
    adapter,
    objective,
    several,
    source,
    training,
)

OBJECTIVES = {
    "hf": "sft",
    "oumi": "sft",
    "trl_sft": "sft",
    "trl_dpo": "dpo",
    "trl_kto": "kto",
    "trl_grpo": "grpo",
}
DTYPES = {
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("float16", "f16", "half"), "float16"),
    **dict.fromkeys(("float32", "f32", "float"), "float32"),
    "auto": "auto",
}
ATTENTION = {name: name for name in ("sdpa", "eager", "flash_attention_2")}
TRAINED = {"all_assistant_turns": "assistant", "final_assistant_turn": "last"}
ANSWERS_ONLY = "text_completions_only_with_padding"
READERS = ("text_sft", "text_sft_jsonl", "PromptResponseDataset")
"""Names by which a data set says how its file is read; here the columns tell."""
COLUMNS = {"prompt": "prompt_column", "completion": "response_column"}
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}
SAVED = {"adapter_only": "adapter", "merged": "hf"}
GROUP = {
    "generations": "num_generations",
    "temperature": "temperature",
    "max_new_tokens": "max_completion_length",
}
TRACKERS = ("wandb", "mlflow", "tensorboard")
WHOLE_ROWS = (
    "Oumi trains every token where no collator says otherwise;"
    " process.train_on=assistant trains answers alone."
)


def translate(draft: Draft) -> None:
    """What a configuration of `oumi train` asks for."""
    _model(draft.section("model"))
    said = draft.section("training")
    kind = OBJECTIVES.get(str(said.said.get("trainer_type", "hf")).lower())
    if kind:
        said.take("trainer_type")
        objective(draft, kind)
    _data(draft.section("data").section("train"), kind)
    _method(draft, peft=bool(said.take("use_peft")))
    _training(said)


def _model(said: Draft) -> None:
    name = said.take("model_name")
    said.put("fetch.model", source(name))
    said.put("fetch.model.revision", said.take("model_revision"))
    said.put("process.max_length", said.take("model_max_length"))
    said.put_one_of("load.dtype", "torch_dtype_str", DTYPES)
    said.put_one_of("load.attention", "attn_implementation", ATTENTION)
    said.put("adapt.kernels", "liger" if said.take("enable_liger_kernel") else None)
    if said.said.get("chat_template") == "auto":
        said.take("chat_template")
    if said.said.get("tokenizer_name") == name:
        said.take("tokenizer_name")
    if said.take("load_pretrained_weights") is False:
        said.notes.append("Has no meaning here: to begin with random weights.")


def _data(said: Draft, kind: str | None) -> None:
    rows = [dict(each) for each in said.take("datasets") or []]
    names = several(said, [_source(said, each) for each in rows])
    _weights(said, {f"fetch.{name}": each for name, each in zip(names, rows, strict=True)})
    if len(rows) == 1:
        _rows(said, rows[0])
    said.put("process.pack", said.take("pack") or None)
    if kind == "sft":
        _trained(said)
    for each in rows:
        left = {name: value for name, value in each.items() if value not in OFF}
        said.notes += [f"Not taken up of datasets: {name}: {left[name]}" for name in left]


def _source(said: Draft, given: dict[str, Any]) -> Recipe:
    """Where a data set is."""
    name, path = given.pop("dataset_name", None), given.pop("dataset_path", None)
    place = path or given.get("dataset_kwargs", {}).pop("hf_dataset_path", None) or name
    if name not in (place, *READERS):
        said.notes.append(f"Not taken up of datasets: dataset_name: {name}")
    given.pop("shuffle", None)  # training shuffles, by the recipe's seed
    return source(place, dataset=True)


def _weights(said: Draft, rows: Mapping[str, dict[str, Any]]) -> None:
    """How several data sets are mixed."""
    shares = {name: each.pop("mixture_proportion", None) for name, each in rows.items()}
    if len(shares) > 1 and all(shares.values()):
        said.put("process.weights", shares)
        said.put("process.stopping_strategy", said.take("mixture_strategy"))


def _rows(said: Draft, given: dict[str, Any]) -> None:
    """Which rows of a data set count, and what its columns mean."""
    said.put("process.split", given.pop("split", None))
    said.put("process.first", given.pop("sample_count", None))
    how = given.get("dataset_kwargs", {})
    if columns := {ours: how.pop(theirs) for ours, theirs in COLUMNS.items() if theirs in how}:
        said.put("process.shape", "prompt_completion")
        said.put("process.columns", columns)


def _trained(said: Draft) -> None:
    """Which tokens are trained."""
    target = str(said.said.get("train_target", "")).lower()
    if target in TRAINED:
        said.take("train_target")
        said.put("process.train_on", TRAINED[target])
    collator = said.said.get("collator_name")
    if collator in (ANSWERS_ONLY, "text_with_padding"):
        said.take("collator_name")
    if target not in TRAINED and collator != ANSWERS_ONLY:
        said.put("process.train_on", "all")
        said.notes.append(WHOLE_ROWS)


def _method(draft: Draft, *, peft: bool) -> None:
    """The method; without `use_peft` what is said of adapters has no effect."""
    said = draft.section("peft")
    if not peft:
        said.put("adapt.method", "full")
        return
    quantized = bool(said.take("q_lora"))
    adapter(said, rank="lora_r", kind="qlora" if quantized else "lora")
    if quantized:
        _quantized(said)
    said.put_one_of("adapt.initialization", "lora_init_weights", {"gaussian": "gaussian"})
    said.put_one_of("save.format", "peft_save_mode", _either_case(SAVED))
    if place := draft.sections["model"].take("adapter_model"):
        said.put("fetch.adapter", source(place))
        said.put("adapt.adapter", "fetch.adapter")


def _quantized(said: Draft) -> None:
    """How the model is held while an adapter on it is taught."""
    bits, form = said.take("q_lora_bits"), said.take("bnb_4bit_quant_type")
    said.put("adapt.base", "int8" if bits == 8 else "nf4")
    if bits != 8 and form != "nf4":
        said.notes.append("Oumi takes fp4 where nothing is said; adapt.base has nf4.")
    said.put("adapt.double_quantization", said.take("use_bnb_nested_quant"))


def _training(said: Draft) -> None:
    length = ("per_device_train_batch_size", "num_train_epochs")
    training(said, *length, "lr_scheduler_type", "optimizer")
    said.put_one_of("adapt.precision", "mixed_precision_dtype", _either_case(PRECISIONS))
    said.put("adapt.gradient_checkpointing", said.take("enable_gradient_checkpointing"))
    said.put("adapt.compile", said.take("compile") or None)
    given = [said.take(name) for name in ("use_deterministic", "full_determinism")]
    said.put("adapt.deterministic", any(given) or None)
    if said.said.get("eval_strategy") == "steps":
        said.take("eval_strategy")
        said.put("adapt.evaluate_every", said.take("eval_steps"))
    said.put("adapt.checkpoint_every", said.take("save_steps") or None)
    said.put("adapt.track", [n for n in TRACKERS if said.take(f"enable_{n}")] or None)
    group = said.section("grpo")
    for name, theirs in GROUP.items():
        said.put(f"adapt.{name}", group.take(theirs))
    said.put("save.to", said.take("output_dir"))


def _either_case(table: Mapping[str, str]) -> dict[str, str]:
    """A table with its words as Oumi's values and as Python's names of them: both are taken."""
    return {**table, **{name.upper(): value for name, value in table.items()}}
