"""The plain TRL script that training is measured against: `python trl_sft.py SETTINGS.json`.

With `"settings": "same"` it is given what our step does; with `"own"` only what it cannot guess:
the model, the rows, LoRA, which tokens to train, the number of steps.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Times(TrainerCallback):
    """Writes a line for every step that is done."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", buffering=1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note when."""
        print(json.dumps({"step": state.global_step, "time": time.time()}), file=self.file)


def main(given: dict[str, Any]) -> None:
    """Train as the settings say."""
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    tokenizer.chat_template = Path(given["template"]).read_text(encoding="utf-8")
    more: dict[str, Any] = {}
    if given["settings"] == "same":
        more = {
            "model_init_kwargs": {"dtype": given["dtype"]},
            "bf16": False,
            "gradient_checkpointing": False,
            "learning_rate": given["learning_rate"],
            "warmup_steps": given["warmup_steps"],
        }
    trainer = SFTTrainer(
        model=given["model"],
        args=SFTConfig(
            output_dir=given["out"],
            max_steps=given["steps"],
            per_device_train_batch_size=given["batch"],
            max_length=given["max_length"],
            assistant_only_loss=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **more,
        ),
        train_dataset=load_dataset("json", data_files=given["rows"], split="train"),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=given["rank"], lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Times(Path(given["times"]))],
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
