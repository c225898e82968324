"""Teach a model by training a LoRA adapter on the trained tokens of a dataset."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner import files, hardware, products
from runner.errors import StepError
from runner.options import option
from runner.products import Dataset, Model
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    checks_nothing,
    never_stale,
    pins_nothing,
    resolves_nothing,
)

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True, restores=True),
    "dataset": Need(kind="dataset"),
}
GIVES = "model"
VERSION = 2
PARTS = False
HOLDS = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """LoRA (arXiv:2106.09685) with the AdamW of transformers' Trainer."""

    rank: int = option(8, "Rank of the adapter's matrices", at_least=1)
    alpha: float = option(16.0, "Scale of the adapter: its output counts alpha / rank")
    dropout: float = option(0.0, "Dropout before the adapter", at_least=0, at_most=1)
    target_modules: tuple[str, ...] = option(
        ("all-linear",), "Names of the layers to adapt, or all-linear"
    )
    epochs: float = option(1.0, "How often every row is seen", at_least=0)
    max_steps: int = option(-1, "Stop after this many steps; -1 for no such limit", at_least=-1)
    batch_size: int = option(8, "Rows a step", at_least=1)
    learning_rate: float = option(2e-4, "The highest learning rate", at_least=0)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "linear", "How the learning rate falls"
    )
    warmup_steps: int = option(5, "Steps in which the learning rate rises", at_least=0)
    weight_decay: float = option(0.0, "Weight decay of AdamW", at_least=0)
    seed: int = option(0, "Decides the adapter's first values and the order of rows", at_least=0)
    checkpoint_every: int = option(
        20, "Training steps between two checkpoints", keyed=False, at_least=1
    )
    keep_checkpoints: int = option(
        2,
        "Checkpoints kept; the one before counts where the last is damaged",
        keyed=False,
        at_least=1,
    )


resolve = resolves_nothing
pins = pins_nothing
check = checks_nothing
stale = never_stale


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The adapter in float32, and with AdamW's two averages in every checkpoint."""
    model = inputs["model"]
    width = model.get("linear_width", 0) if options.target_modules == ("all-linear",) else 0
    adapter = 4 * options.rank * width
    return Room(kept=adapter, work=3 * adapter * (options.keep_checkpoints + 1), gives=model)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Train from the newest checkpoint, or from the start."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, set_seed

    dataset: Dataset = inputs["dataset"]
    source = products.with_template(inputs["model"], dataset.template)
    use_cache = source.model.config.use_cache
    set_seed(options.seed)
    targets = options.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
    )
    try:
        model = get_peft_model(source.model, config)
    except ValueError as error:
        raise StepError(f"target_modules: {error}") from error
    context.checkpoint.keep = options.keep_checkpoints
    found = context.checkpoint.newest()
    if found:
        context.note(f"going on from step {found[0]}")
    trainer = Trainer(
        model=model,
        args=_arguments(options, context.draft / "trainer"),
        train_dataset=dataset.train.select_columns(_columns(dataset, model)),
        data_collator=_collator(dataset, source.tokenizer),
        processing_class=source.tokenizer if _is_packed(dataset) else None,
        callbacks=[_callback(context)],
    )
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    model.config.use_cache = use_cache  # the Trainer turns it off, and would save it so
    if trainer.state.global_step < trainer.state.max_steps:
        context.stop_here()
    context.facts |= {
        "steps": trainer.state.global_step,
        "loss": _last_loss(trainer.state.log_history),
        "trained_parameters": model.get_nb_trainable_parameters()[0],
    }
    return Model(model.eval(), source.tokenizer)


def _is_packed(dataset: Dataset) -> bool:
    return "position_ids" in dataset.train.column_names


def _columns(dataset: Dataset, model: Any) -> list[str]:
    """What of the rows is trained on; StepError where this cannot be done rightly."""
    if dataset.kind != "sft":
        raise StepError(f"its dataset is of the kind {dataset.kind}, and adapt learns from sft.")
    if "weights" in dataset.train.column_names:
        raise StepError("messages weigh differently, and adapt knows only weights of 0 and 1.")
    if not _is_packed(dataset):
        return ["input_ids", "labels"]
    from runner.data import pack

    if pack.crosses(model):
        raise StepError(
            "this model lets packed rows see one another.", "Leave them apart: process.pack=false"
        )
    return ["input_ids", "labels", "position_ids"]


def _collator(dataset: Dataset, tokenizer: Any) -> Any:
    """What makes a batch of rows, padded to one length."""
    from transformers import DataCollatorForSeq2Seq

    from runner.data import pack

    if _is_packed(dataset):
        return partial(pack.collate, pad=tokenizer.pad_token_id, multiple_of=8)
    return DataCollatorForSeq2Seq(
        tokenizer, label_pad_token_id=products.IGNORED, pad_to_multiple_of=8
    )


def save(product: Model, folder: Path) -> None:
    """Write the adapter alone, the same bytes on every machine and in every store."""
    product.model.save_pretrained(folder)
    template = product.tokenizer.chat_template
    (folder / products.TEMPLATE).write_text(template or "", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card names local paths
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Put the adapter onto its base again."""
    from peft import PeftModel

    base = inputs["model"]
    template = (folder / products.TEMPLATE).read_text(encoding="utf-8")
    products.with_template(base, template or None)
    model = PeftModel.from_pretrained(base.model, folder, low_cpu_mem_usage=False)
    return Model(model.eval(), base.tokenizer)


def _arguments(options: Options, folder: Path) -> Any:
    from transformers import TrainingArguments

    files.remove(folder)  # whatever a killed run left half-written; whole ones are checkpoints
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        seed=options.seed,
        data_seed=options.seed,
        save_strategy="steps",
        save_steps=options.checkpoint_every,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        use_cpu=hardware.device() == "cpu",
        dataloader_pin_memory=hardware.device() != "cpu",
        report_to=[],
        disable_tqdm=True,
    )


def _callback(context: Context) -> Any:
    """What the Trainer tells us: progress, figures, checkpoints; and what we tell it: stop."""
    import math
    import time

    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        loss, began, tokens_before = math.nan, 0.0, 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began, self.tokens_before = time.monotonic(), state.num_input_tokens_seen

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if context.should_stop():
                control.should_save = control.should_training_stop = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            if "loss" not in (logs or {}):
                return
            self.loss = float(logs["loss"])
            if not math.isfinite(self.loss):
                raise StepError(
                    f"the loss is {self.loss} at step {state.global_step}.",
                    "Try a lower adapt.learning_rate.",
                )
            seconds = time.monotonic() - self.began
            rate = (state.num_input_tokens_seen - self.tokens_before) / max(seconds, 1e-9)
            context.progress(
                state.global_step,
                state.max_steps,
                "steps",
                loss=round(self.loss, 4),
                tokens_per_second=round(rate),
            )
            context.metrics(
                {
                    "step": state.global_step,
                    "loss": self.loss,
                    "learning_rate": float(logs["learning_rate"]),
                    "tokens": int(state.num_input_tokens_seen),
                }
            )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            context.checkpoint.save(state.global_step, written)

    return Callback()


def _last_loss(history: list[dict[str, Any]]) -> float | None:
    losses = [row["loss"] for row in history if "loss" in row]
    return round(float(losses[-1]), 4) if losses else None
