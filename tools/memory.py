"""Measures how near the memory preflight comes: each case estimated, then run in a process.

`python tools/memory.py FOLDER` prints a table for the model in that folder; `make bench` has it in
docs/figures.md. What is measured is by how much the peak of the process's resident memory grows
over what it held before, after a warm-up with a model of two layers that loads every library.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner import hardware
from runner.files import human_bytes
from runner.memory import estimate
from runner.memory.estimate import Answering, Training
from runner.memory.shape import Held

ROUNDS = 3
"""One and the same case differs: where a heap has holes, and which pages of a file are there."""
FP32, BF16 = Held(dtype="float32"), Held(dtype="bfloat16")
NF4, INT8 = (Held(dtype="bfloat16", method=method) for method in ("nf4", "int8"))


@dataclass(frozen=True)
class Case:
    """One row of the table: how the weights are held, and what is done with them."""

    name: str
    held: Held
    use: Training | Answering | None = None


def _lora(rows: int, length: int, *, checkpointing: bool = False) -> Training:
    return Training(
        rank=8, micro_batch_size=rows, max_length=length, gradient_checkpointing=checkpointing
    )


ANSWERS = Answering(batch_size=8, prompt_length=64, max_new_tokens=16)
CASES = (
    Case("load in float32", FP32),
    Case("load in bfloat16", BF16),
    Case("load as nf4", NF4),
    Case("load as int8", INT8),
    Case("LoRA, float32, 2 x 64", FP32, _lora(2, 64)),
    Case("LoRA, float32, 4 x 128", FP32, _lora(4, 128)),
    Case("the same, gradient checkpointing", FP32, _lora(4, 128, checkpointing=True)),
    Case(
        "LoRA, bfloat16, 1 x 512, gradient checkpointing", BF16, _lora(1, 512, checkpointing=True)
    ),
    Case("QLoRA, nf4, 4 x 128", NF4, _lora(4, 128)),
    Case("QLoRA, nf4, 2 x 256, gradient checkpointing", NF4, _lora(2, 256, checkpointing=True)),
    Case("QLoRA, nf4, 2 x 64", NF4, _lora(2, 64)),
    Case("QLoRA, int8, 4 x 128", INT8, _lora(4, 128)),
    Case("QLoRA, int8, 2 x 64", INT8, _lora(2, 64)),
    Case("full, float32, 2 x 64", FP32, Training(rank=None, micro_batch_size=2, max_length=64)),
    Case("answers, float32, 8 x (64 + 16)", FP32, ANSWERS),
    Case("answers, bfloat16, 8 x (64 + 16)", BF16, ANSWERS),
)


def rows(folder: Path) -> Iterator[tuple[str, int, list[int]]]:
    """Each case's name, the estimate and what was measured each time, in bytes, in order."""
    for number, case in enumerate(CASES):
        measured = sorted(_figure(folder, "measure", number) for _ in range(ROUNDS))
        yield case.name, _figure(folder, "estimate", number), measured


def _figure(folder: Path, what: str, number: int) -> int:
    """What a process of its own says of a case, in bytes."""
    command = [sys.executable, __file__, str(folder), what, str(number)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def page(folder: Path) -> str:
    """The table for docs/figures.md."""
    lines = ["", "## The memory preflight on SmolLM2-135M", ""]
    lines += [f"What the code says: {estimate.BAND}. Measured: the median of {ROUNDS} here.", ""]
    lines += ["| case | estimated | measured | least to most | error |", "|---|---|---|---|---|"]
    for name, guess, real in rows(folder):
        middle = statistics.median(real)
        spread = " to ".join(human_bytes(each) for each in (real[0], real[-1]))
        sizes = f"{human_bytes(guess)} | {human_bytes(middle)} | {spread}"
        lines.append(f"| {name} | {sizes} | {guess / middle - 1:+.1%} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def estimated(folder: Path, case: Case) -> int:
    """The peak that the preflight says: of loading, or of what comes after it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    found = [estimate.to_load(config, case.held)]
    if isinstance(case.use, Training):
        found.append(estimate.to_train(config, case.held, case.use))
    if isinstance(case.use, Answering):
        found.append(estimate.to_answer(config, case.held, case.use))
    print(*map(asdict, found), sep="\n")
    return max(each.peak for each in found)


def measured(folder: Path, case: Case) -> int:
    """What it takes, in this process."""
    hardware.prepare()
    with tempfile.TemporaryDirectory() as place:
        _do(_small(folder, Path(place)), case)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    _do(folder, case)
    return _resident("VmHWM") - before


def _small(folder: Path, place: Path) -> Path:
    """A model of the same kind with two layers and few tokens, to warm up with."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.num_hidden_layers, config.vocab_size = 2, 512
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return place


def _do(folder: Path, case: Case) -> None:
    from runner.models import form, opening

    how: dict[str, Any] = {"dtype": case.held.dtype, "device_map": "cpu"}
    if case.held.method:
        settings = {"method": case.held.method, "threshold": 6.0, "double_quantization": False}
        settings |= {"compute_dtype": "auto"}
        how["quantization_config"] = opening.bitsandbytes(settings, case.held.dtype)
    model = opening.open_whole(form.read(folder), how, tight=bool(case.held.method))
    if isinstance(case.use, Training):
        _train(model, case.use)
    elif isinstance(case.use, Answering):
        _answer(model, case.use)
    else:
        import torch

        with torch.no_grad():  # every weight is touched
            model(torch.zeros(1, 1, dtype=torch.long))


def _train(model: Any, use: Training) -> None:
    """Some steps, as transformers' Trainer takes them; in the first few the heap still grows."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    if use.rank is not None:
        how = LoraConfig(task_type="CAUSAL_LM", r=use.rank, target_modules="all-linear")
        model = get_peft_model(model, how)
    ids = torch.arange(use.max_length) % 500
    row = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            max_steps=4,
            per_device_train_batch_size=use.micro_batch_size,
            gradient_checkpointing=use.gradient_checkpointing,
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=[row] * 64).train()


def _answer(model: Any, use: Answering) -> None:
    import torch

    ids = torch.ones(use.batch_size, use.prompt_length, dtype=torch.long)
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=use.max_new_tokens,
            max_new_tokens=use.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
        )


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def main() -> None:
    """A table, or one figure for it."""
    folder = Path(sys.argv[1])
    if len(sys.argv) == 2:
        print(page(folder))
        return
    case = CASES[int(sys.argv[3])]
    print(estimated(folder, case) if sys.argv[2] == "estimate" else measured(folder, case))


if __name__ == "__main__":
    main()
