"""Adapters on a base: found, put on, weighed, merged, and told apart from what does not fit."""

import json
import shutil
from pathlib import Path

import pytest
from test_load import checked, loaded, part
from test_stages import context, kept, logits

from runner.errors import StepError
from runner.products import Files
from runner.stages import load, save


def make_adapter(base: Path, folder: Path, seed: int = 0, rank: int = 4, **settings) -> Files:
    """A random LoRA adapter, whose B is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    how = {"target_modules": "all-linear", "init_lora_weights": False} | settings
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, **how)).save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "acme/tiny"}
    path.write_text(json.dumps(config))
    return Files(folder)


@pytest.fixture
def plain(tiny_model) -> Files:
    return Files(tiny_model, {"repo": "acme/tiny", "commit": "0" * 40})


@pytest.fixture
def one(tiny_model, tmp_path) -> Files:
    return make_adapter(tiny_model, tmp_path / "one", seed=1)


@pytest.fixture
def two(tiny_model, tmp_path) -> Files:
    return make_adapter(tiny_model, tmp_path / "two", seed=2)


def by_peft(base: Path, *folders: Path, weights: tuple[float, ...] = ()):
    """The logits as transformers and peft themselves give them, the last adapter active."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from runner.products import Model

    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32", device_map="cpu")
    for folder in folders:
        if isinstance(model, PeftModel):
            model.load_adapter(folder, folder.name)
        else:
            model = PeftModel.from_pretrained(model, folder, folder.name)
    model.set_adapter(folders[-1].name)
    if weights:
        model.add_weighted_adapter([f.name for f in folders], list(weights), "sum", "linear")
        model.set_adapter("sum")
    return logits(Model(model.eval(), None))


def test_an_adapter_is_put_on_its_base_as_peft_does_it(plain, one, tmp_path):
    more = {"adapters": {"fetch.one": one}}
    model, made = loaded(plain, tmp_path, more=more, dtype="float32")
    assert logits(model).equal(by_peft(plain.folder, one.folder))
    assert made.facts["adapters"] == ["one"]
    assert model.folder is None
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert not [note for note in made.notes if "its base" in note]
    again = kept(load, model, tmp_path / "kept", {"files": plain, **more})
    assert logits(again).equal(logits(model))


def test_one_of_several_adapters_is_active_and_the_first_unless_another_is_named(
    plain, one, two, tmp_path
):
    more = {"adapters": {"fetch.one": one, "fetch.two": two}}
    first, _ = loaded(plain, tmp_path / "a", more=more, dtype="float32")
    second, made = loaded(plain, tmp_path / "b", more=more, dtype="float32", active="two")
    assert logits(first).equal(by_peft(plain.folder, one.folder))
    assert logits(second).equal(by_peft(plain.folder, two.folder))
    assert made.facts["adapters"] == ["one", "two"]
    again = kept(load, second, tmp_path / "kept", {"files": plain, **more})
    assert logits(again).equal(logits(second))


def test_several_adapters_become_a_weighted_sum(plain, one, two, tmp_path):
    more = {"adapters": {"fetch.one": one, "fetch.two": two}}
    how = {"combine": {"weights": {"one": 0.7, "two": 0.3}}, "dtype": "float32"}
    model, _ = loaded(plain, tmp_path, more=more, **how)
    assert logits(model).equal(by_peft(plain.folder, one.folder, two.folder, weights=(0.7, 0.3)))
    merged, _ = loaded(plain, tmp_path / "m", more=more, merge=True, **how)
    assert (logits(merged) - logits(model)).abs().max() < 1e-5
    again = kept(load, merged, tmp_path / "kept", {"files": plain, **more})
    assert logits(again).equal(logits(merged))


def test_adapters_of_different_ranks_are_not_added_linearly(plain, one, tiny_model, tmp_path):
    other = make_adapter(tiny_model, tmp_path / "other", rank=2)
    more = {"adapters": {"fetch.one": one, "fetch.other": other}}
    weights = {"one": 0.5, "other": 0.5}
    with pytest.raises(StepError, match="cannot be combined"):
        loaded(plain, tmp_path, more=more, combine={"weights": weights})
    loaded(plain, tmp_path / "svd", more=more, combine={"weights": weights, "method": "cat"})


def test_merged_on_load_it_is_a_plain_model(plain, one, tmp_path):
    more = {"adapters": {"fetch.one": one}}
    model, made = loaded(plain, tmp_path, more=more, dtype="float32", merge=True)
    assert made.facts["adapters"] == []
    assert not hasattr(model.model, "merge_and_unload")
    assert (logits(model) - by_peft(plain.folder, one.folder)).abs().max() < 1e-5
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, context(tmp_path / "s"))
    saved, _ = loaded(Files(tmp_path / "out"), tmp_path / "again", dtype="float32")
    assert logits(saved).equal(logits(model))


def test_an_adapter_on_quantized_weights_is_not_merged_and_the_order_that_works_is_said(
    plain, one, tmp_path
):
    more = {"adapters": (part("one", repo="acme/one"),)}
    found = checked(more=more, quantization={"method": "nf4"}, merge=True)
    assert "Merge into unquantized weights, then quantize" in found[0]
    whole, _ = loaded(plain, tmp_path, quantization={"method": "nf4"}, dtype="bfloat16")
    save.run(save.Options(to=tmp_path / "q"), {"model": whole}, context(tmp_path / "s"))
    given = {"adapters": {"fetch.one": one}}
    with pytest.raises(StepError, match="not merged into weights quantized with bitsandbytes"):
        loaded(Files(tmp_path / "q"), tmp_path / "m", more=given, merge=True)
    loaded(Files(tmp_path / "q"), tmp_path / "u", more=given)


def test_an_adapter_as_the_model_goes_onto_the_base_that_another_part_brings(plain, one, tmp_path):
    model, made = loaded(one, tmp_path, more={"base": plain}, dtype="float32")
    assert logits(model).equal(by_peft(plain.folder, one.folder))
    assert made.facts["adapters"] == ["model"]
    assert model.tokenizer.name_or_path == str(plain.folder)
    again = kept(load, model, tmp_path / "kept", {"files": one, "base": plain})
    assert logits(again).equal(logits(model))


def test_an_adapter_without_its_base_says_which_base_to_fetch(one, tmp_path):
    with pytest.raises(StepError) as error:
        loaded(one, tmp_path)
    assert "an adapter of acme/tiny, which must be fetched too" in str(error.value)
    assert "fetch.base: {repo: acme/tiny} and load.base: fetch.base" in str(error.value)


def test_a_base_beside_a_whole_model_is_refused(plain, tmp_path):
    with pytest.raises(StepError, match=r"fetch\.model is a whole model"):
        loaded(plain, tmp_path, more={"base": plain})


def test_an_adapter_made_for_another_repository_is_said(plain, one, tmp_path):
    other = Files(plain.folder, {"repo": "acme/other", "commit": "0" * 40})
    _, made = loaded(other, tmp_path, more={"adapters": {"fetch.one": one}})
    assert (
        "the adapter one says that its base is acme/tiny, and it is put on acme/other" in made.notes
    )


def test_an_adapter_of_another_shape_or_with_too_few_tensors_is_refused(plain, one, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = one.folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    save_file({n: t for n, t in tensors.items() if n != name}, weights)
    with pytest.raises(StepError, match="the adapter one lacks"):
        loaded(plain, tmp_path, more={"adapters": {"fetch.one": one}})
    save_file(tensors | {name: tensors[name][:, :3].contiguous()}, weights)
    with pytest.raises(StepError, match="the adapter one does not fit its base"):
        loaded(plain, tmp_path, more={"adapters": {"fetch.one": one}})
    save_file(tensors | {name.replace("layers.0", "layers.9"): tensors[name].clone()}, weights)
    with pytest.raises(StepError, match="has no place for"):
        loaded(plain, tmp_path, more={"adapters": {"fetch.one": one}})


def test_a_pickled_adapter_and_what_is_none_are_refused(plain, one, tmp_path):
    weights = one.folder / "adapter_model.safetensors"
    shutil.move(weights, one.folder / "adapter_model.bin")
    with pytest.raises(StepError, match=r"pickled adapters \(\.bin\) are not read"):
        loaded(plain, tmp_path, more={"adapters": {"fetch.one": one}})
    with pytest.raises(StepError, match="holds no adapter"):
        loaded(plain, tmp_path, more={"adapters": {"fetch.one": plain}})


def test_contradictions_about_adapters_are_found_before_any_work():
    both = {"adapters": (part("one"), part("two"))}
    assert checked(merge=True) == ["merge needs adapters: [fetch.NAME], and there are none."]
    assert checked(more=both, active="ones") == [
        'active: there is no adapter "ones". Did you mean "one"?'
    ]
    assert (
        "exclude each other"
        in checked(more=both, active="one", combine={"weights": {"one": 1.0}})[0]
    )
    assert checked(more=both, combine={"weights": {"one": 1.0}, "density": 0.5}) == [
        "density means nothing to linear."
    ]
    assert (
        "needs a density"
        in checked(more=both, combine={"weights": {"one": 1.0}, "method": "ties"})[0]
    )
    assert "two adapters are called" in checked(more={"adapters": (part("one"), part("one"))})[0]
