"""Recipes from the configurations of axolotl."""

from runner.importing.draft import Draft, adapter, held_out, objective, several, source, training


def translate(draft: Draft) -> None:
    """What a configuration of axolotl asks for."""
    draft.put("fetch.model", source(draft.take("base_model")))
    draft.put("fetch.model.revision", draft.take("revision_of_model"))
    _data(draft)
    adapter(draft, rank="lora_r", kind=draft.take("adapter") or "full")
    if draft.take("lora_target_linear"):
        draft.put("adapt.target_modules", "auto")
    if draft.said.get("rl") in ("dpo", "ipo", "orpo", "kto"):
        objective(draft, str(draft.take("rl")))
    draft.put("process.max_length", draft.take("sequence_len"))
    draft.put("process.pack", draft.take("sample_packing"))
    draft.put("process.train_on", "all" if draft.take("train_on_inputs") else None)
    held_out(draft, "val_set_size")
    training(draft, "micro_batch_size", "num_epochs", "lr_scheduler", "optimizer")
    draft.put("adapt.patience", draft.take("early_stopping_patience"))
    if draft.take("flash_attention"):
        draft.put("load.attention", "flash_attention_2")
    draft.put("save.to", draft.take("output_dir"))


def _data(draft: Draft) -> None:
    shapes = {"alpaca": "alpaca", "completion": "text", "sharegpt": "sharegpt"}
    listed = draft.take("datasets") or []
    rows = [{"path": each} if isinstance(each, str) else dict(each) for each in listed]
    several(draft, [source(given.pop("path", None), dataset=True) for given in rows])
    for given in rows:
        if draft.said.get("rl") is None and given.get("type") in shapes:
            draft.put("process.shape", shapes[given.pop("type")])
        elif given.get("type") == "chat_template":
            given.pop("type")
        if "split" in given:
            draft.put("process.split", given.pop("split"))
        draft.notes += [f"Not taken up of datasets: {key}: {given[key]}" for key in given]
