"""Recipes from the configurations of LLaMA-Factory."""

from runner.importing.draft import (
    ATTENTION,
    Draft,
    adapter,
    held_out,
    objective,
    source,
    training,
)


def translate(draft: Draft) -> None:
    """What a configuration of LLaMA-Factory asks for."""
    draft.put("fetch.model", source(draft.take("model_name_or_path")))
    draft.put("fetch.model.revision", draft.take("model_revision"))
    names = str(draft.take("dataset") or "")
    draft.put("fetch.data", source(names, dataset=True) if "/" in names else {"path": names})
    draft.notes.append("LLaMA-Factory looks data sets up in dataset_info.json: check fetch.data.")
    bits = {4: "nf4", 8: "int8"}.get(draft.said.get("quantization_bit", 0))
    kind = draft.take("finetuning_type") or "lora"
    if bits and kind == "lora":
        draft.take("quantization_bit")
        kind = "qlora"
        draft.put("adapt.base", bits)
    adapter(draft, rank="lora_rank", kind=str(kind))
    _lora_target(draft)
    stage = {"rm": "reward", "sft": "sft", "dpo": str(draft.said.get("pref_loss", "sigmoid"))}
    stage["kto"] = "kto"
    if draft.said.get("stage") in stage:
        objective(draft, stage[str(draft.take("stage"))])
        draft.take("pref_loss")
    draft.put("adapt.beta", draft.take("pref_beta"))
    draft.put("process.max_length", draft.take("cutoff_len"))
    draft.put("process.first", draft.take("max_samples"))
    draft.put("process.pack", draft.take("packing"))
    draft.put("process.train_on", "all" if draft.take("train_on_prompt") else None)
    held_out(draft, "val_size")
    length = ("per_device_train_batch_size", "num_train_epochs")
    training(draft, *length, "lr_scheduler_type", "optim")
    draft.put_one_of("load.attention", "flash_attn", ATTENTION)
    draft.put("adapt.kernels", "liger" if draft.take("enable_liger_kernel") else None)
    draft.put("save.to", draft.take("output_dir"))
    draft.put("save.overwrite", draft.take("overwrite_output_dir"))


def _lora_target(draft: Draft) -> None:
    target = draft.take("lora_target")
    listed = target if isinstance(target, list) else str(target or "all").split(",")
    named = [str(each).strip() for each in listed]
    draft.put("adapt.target_modules", "auto" if named == ["all"] else named)
