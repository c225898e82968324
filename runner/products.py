"""What steps give to later steps, and how each kind is written and read back."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import files
from runner.errors import StepError

Row = dict[str, Any]
FILES, REFERENCE = "files", "hub.json"
"""What a fetch step's product holds: a folder of files, or what the files in the Hub cache are."""
TEMPLATE = "chat_template.jinja"
BATCH = 1000
"""Rows of a dataset that are written together."""
IGNORED = -100
"""The label of a token that is not trained (torch's cross entropy leaves it out)."""

Kind = Literal["sft", "preference", "unpaired"]
COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "sft": ("input_ids", "labels"),
    "preference": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "unpaired": ("prompt_ids", "completion_ids", "label"),
}
"""What the rows of each kind of dataset have."""


@dataclass(frozen=True)
class Files:
    """A folder of files, as a Hub repository holds them.

    `reference` says what they are where the bytes themselves stay in the user's Hub cache.
    """

    folder: Path
    reference: Mapping[str, Any] | None = None

    def find(self, pattern: str) -> list[Path]:
        """The files whose path below the folder fits a pattern, sorted."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return [path for path in found if path.match(pattern)]


@dataclass(frozen=True)
class Dataset:
    """Rows of tokens, all of one kind; those held out with the `example` (JSON) that they were.

    sft         `input_ids` and `labels`, which are the ids where a token is trained and IGNORED
                elsewhere; `weights` where answers count differently. Packed rows have `lengths`,
                and `position_ids` that restart with each row inside.
    preference  `prompt_ids`, `chosen_ids`, `rejected_ids`: the generation prompt, and the answers
                with their stop tokens, as the collator of trl's DPOTrainer takes them.
    unpaired    `prompt_ids`, `completion_ids` and a `label`, true for a good answer, as the
                collator of trl's KTOTrainer takes them.

    Ids are lists of int32. The rows held out are never among those trained on. `template` is the
    chat template that was used, where it is not the tokenizer's own.
    """

    train: Any
    held_out: Any
    template: str | None = None

    @property
    def kind(self) -> Kind:
        """What is learnt from a row: all of it that is trained, or which answer is better."""
        names = {*self.train.column_names}
        return next(kind for kind, columns in COLUMNS.items() if names.issuperset(columns))

    def conversations(self) -> list[dict[str, Any]]:
        """The examples held out, each with its `messages` and, where it has them, its `tools`.

        They end with the answer that is wanted: of preferences with the chosen one, and those
        labelled as bad are left out. StepError where the rows held out are no conversations.
        """
        found = [json.loads(text) for text in self.held_out["example"]]
        chats = [_chat(example) for example in found if example.get("label", True)]
        if not all("messages" in example for example in chats):
            raise StepError("the rows held out are no conversations, so nothing can be asked.")
        return chats

    def scored(self, count: int) -> list[Row]:
        """`input_ids` and `labels` of the first rows held out, at most `count`.

        Of preferences those of the wanted answers, as in `conversations`.
        """
        rows = self.held_out.select_columns(COLUMNS[self.kind])
        if self.kind == "unpaired":
            rows = rows.select([at for at, good in enumerate(rows["label"]) if good])
        return [_as_labels(row) for row in rows.select(range(min(count, len(rows))))]


def _chat(example: dict[str, Any]) -> dict[str, Any]:
    """The conversation that an example holds, if it does."""
    answer = example.get("chosen", example.get("completion"))
    if not isinstance(answer, list):
        return example
    tools = {"tools": example["tools"]} if "tools" in example else {}
    return {"messages": example["prompt"] + answer, **tools}


def _as_labels(row: Row) -> Row:
    """A row of any kind as one that is learnt whole."""
    answer = row.get("chosen_ids", row.get("completion_ids"))
    if answer is None:
        return {"input_ids": row["input_ids"], "labels": row["labels"]}
    prompt = row["prompt_ids"]
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


@dataclass(frozen=True)
class Model:
    """A transformers (or peft) model in eval mode and its tokenizer.

    `folder` is where the very same model lies on disk, ready for `from_pretrained`, if it does;
    `reference` the Hub repository and commit of the model or, with an adapter on it, of its base.
    """

    model: Any
    tokenizer: Any
    folder: Path | None = None
    reference: Mapping[str, Any] | None = None


def save_files(product: Files, folder: Path) -> None:
    """Link (or copy) the product's files into the folder."""
    for path in sorted(product.folder.rglob("*")):
        if path.is_file():
            place(path.resolve(), folder / path.relative_to(product.folder))


def place(source: Path, target: Path) -> None:
    """A hard link where both are on one file system, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def save_dataset(product: Dataset, folder: Path) -> None:
    """Write each split as one Arrow stream, without what would differ between two writers.

    Batches have a size of their own, however the rows came, and one at a time is in memory.
    """
    import pyarrow as pa

    for name in ("train", "held_out"):
        rows = getattr(product, name).with_format("arrow")
        schema = rows.features.arrow_schema.remove_metadata()
        path = str(folder / f"{name}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for begin in range(0, len(rows), BATCH):
                batch = rows[begin : begin + BATCH].replace_schema_metadata(None)
                writer.write_table(batch.combine_chunks())
    if product.template is not None:
        (folder / TEMPLATE).write_text(product.template, encoding="utf-8")


def restore_dataset(folder: Path, inputs: Mapping[str, Any]) -> Dataset:
    """Map the splits into memory."""
    import datasets

    template = folder / TEMPLATE
    return Dataset(
        train=datasets.Dataset.from_file(str(folder / "train.arrow")),
        held_out=datasets.Dataset.from_file(str(folder / "held_out.arrow")),
        template=template.read_text(encoding="utf-8") if template.exists() else None,
    )


def save_rows(product: Sequence[Row], folder: Path) -> None:
    """Write rows as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in product]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def restore_rows(folder: Path, inputs: Mapping[str, Any]) -> list[Row]:
    """Read rows back."""
    text = (folder / "rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def save_scores(product: Mapping[str, Any], folder: Path) -> None:
    """Write scores as one JSON file, and what each row got (`rows`) as JSON lines."""
    scores = {name: value for name, value in product.items() if name != "rows"}
    files.write_json(folder / "scores.json", scores)
    save_rows(product["rows"], folder)


def restore_scores(folder: Path, inputs: Mapping[str, Any]) -> Any:
    """Read scores back."""
    return files.read_json(folder / "scores.json") | {"rows": restore_rows(folder, inputs)}


def open_model(
    folder: Path, *, tokenizer: Any = None, scores: bool = False, **settings: Any
) -> Model:
    """A causal language model and its tokenizer from a folder, as `open_weights` opens it."""
    model = open_weights(folder, scores=scores, **settings)
    return Model(model, tokenizer or open_tokenizer(folder), folder)


def open_weights(folder: Path, *, scores: bool = False, **settings: Any) -> Any:
    """A causal language model from a folder, on this machine's device, in eval mode.

    `scores` opens one that gives a number for a text instead. `settings` go to `from_pretrained`.
    Nothing is fetched, and pickled weights and code of the folder's own are refused.
    """
    from runner import hardware
    from runner.models import form, opening

    how = {"device_map": hardware.device(), **settings}
    return opening.open_whole(form.read(folder), how, scores=scores)


def open_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model's folder, padding on the left and never without a pad token."""
    from transformers import AutoTokenizer

    from runner import convert

    if source := convert.gguf_of(folder):
        tokenizer = convert.open_gguf_tokenizer(source, padding_side="left")
    else:
        tokenizer = AutoTokenizer.from_pretrained(
            folder,
            local_files_only=True,
            padding_side="left",
            trust_remote_code=trust_remote_code,
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def untouched(tokenizer: Any) -> Any:
    """The tokenizer as it was opened: using one leaves padding settings in what it would save."""
    was_trusted = type(tokenizer).__module__.startswith("transformers_modules.")
    opened = open_tokenizer(Path(tokenizer.name_or_path), trust_remote_code=was_trusted)
    opened.chat_template = tokenizer.chat_template
    return opened


def linear_width(model: Any) -> int:
    """Inputs and outputs of all linear layers but the last: an adapter's parameters per rank."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    layers = [each for each in model.modules() if isinstance(each, (Linear, Conv1D))]
    inner = [each for each in layers if each is not model.get_output_embeddings()]
    return sum(map(_width, inner))


def _width(layer: Any) -> int:
    """Inputs and outputs of a layer; GPT-2's Conv1D has other names for them."""
    is_linear = hasattr(layer, "in_features")
    return int(layer.in_features + layer.out_features if is_linear else layer.nx + layer.nf)


def with_template(model: Model, template: str | None) -> Model:
    """The model, whose tokenizer from now on renders conversations by this chat template."""
    if template is not None:
        model.tokenizer.chat_template = template
    return model


def write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a whole model as `from_pretrained` opens it, with no path of this machine in it."""
    write_weights(model, folder)
    write_tokenizer(tokenizer, folder)


def write_weights(model: Any, folder: Path) -> None:
    """Write the weights and the configuration likewise."""
    model.config._name_or_path = ""
    model.save_pretrained(folder)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer likewise."""
    tokenizer.save_pretrained(folder)
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    for name in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(name, None)
    text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True)
    settings_path.write_text(text + "\n", encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """Bytes of all weight files in a model's folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
