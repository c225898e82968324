"""Loading: every form of checkpoint, quantizing on the way, adapters, code, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_stages import context, kept, logits

from runner import hardware, products
from runner.errors import StepError
from runner.models import attention
from runner.options import build
from runner.products import Files
from runner.stages import fetch, load, save

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def loaded(files: Files, place: Path, *, more: Any = None, **settings: Any) -> Any:
    """What load gives, and what it said: in `made.facts` and `made.notes`."""
    options, faults = build(load.Options, settings)
    assert not faults, faults
    made = context(place / "load")
    model = load.run(options, {"files": files, **(more or {})}, made)
    return model, made


def checked(files: Any = None, more: Any = None, **settings: Any) -> list[str]:
    """The faults that are found before any work."""
    options, faults = build(load.Options, settings)
    assert not faults, faults
    steps = {"files": (SimpleNamespace(name="fetch.model", options=files or fetch.Options()),)}
    return [
        f"{fault.fact} {fault.guess}".strip() for fault in load.check(options, steps | (more or {}))
    ]


def part(name: str, **settings: Any) -> Any:
    return SimpleNamespace(name=f"fetch.{name}", options=fetch.Options(**settings))


def plain_logits(folder: Path, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    how = {"dtype": "auto", "device_map": "cpu"} | settings
    model = AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    return logits(products.Model(model, None))


@pytest.fixture
def plain(tiny_model: Path) -> Files:
    return Files(tiny_model)


def changed(source: Path, target: Path, **config: Any) -> Path:
    """A copy of a model's folder with another configuration."""
    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return target


# --- what is said


def test_it_says_how_large_the_model_is_where_it_lies_and_how_it_computes(plain, tmp_path):
    model, made = loaded(plain, tmp_path)
    assert made.facts["parameters"] == model.model.num_parameters()
    assert 0 <= made.facts["bytes"] - 2 * made.facts["parameters"] < 100  # the rest is buffers
    assert (made.facts["dtype"], made.facts["device"]) == ("bfloat16", "cpu")
    assert made.facts["attention"] == "sdpa"
    assert made.notes[0] == "attention: sdpa"
    assert made.notes[-1].startswith("0.1 M parameters, bfloat16, 214.2 kB, on cpu, sdpa attention")


# --- attention


def test_the_best_attention_is_chosen_by_the_machine_and_then_by_the_class(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: (hardware.Gpu("A100", 1, (8, 0)),))
    monkeypatch.setattr(attention, "is_installed", lambda name: True)
    assert attention.best() == "flash_attention_2 or sdpa or eager"
    assert load.resolve(load.Options(), {}).attention == attention.best()
    flash = type("Flash", (), {"_supports_flash_attn": True, "_supports_sdpa": True})
    said: list[str] = []
    assert attention.choose(attention.best(), flash, "bfloat16", said.append) == "flash_attention_2"
    assert attention.choose(attention.best(), flash, "float32", said.append) == "sdpa"
    assert attention.choose(attention.best(), type("Old", (), {}), "float32", print) == "eager"
    assert said == [
        "attention: flash_attention_2",
        "attention: sdpa (flash_attention_2: not for Flash in float32)",
    ]


def test_flash_attention_is_not_chosen_where_a_gpu_is_too_old_or_the_library_missing(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: (hardware.Gpu("T4", 1, (7, 5)),))
    monkeypatch.setattr(attention, "is_installed", lambda name: True)
    assert attention.best() == "sdpa or eager"
    monkeypatch.undo()
    if attention.is_installed("flash_attention_2"):
        pytest.skip("flash-attn is installed")
    found = checked(attention="flash_attention_2")
    assert len(found) == 1
    assert 'python -m pip install "recipe-runner[flash]"' in found[0]


def test_attention_that_the_class_does_not_know_is_refused_with_what_it_has():
    old = type("Old", (), {"_supports_sdpa": True})
    with pytest.raises(
        StepError, match=r"Old in float32 has no flex_attention; it has sdpa, eager"
    ):
        attention.choose("flex_attention", old, "float32", print)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_attention_that_is_named_is_used_and_kept(kind, plain, tmp_path):
    model, _ = loaded(plain, tmp_path, attention=kind)
    assert model.model.config._attn_implementation == kind
    again = kept(load, model, tmp_path / "kept", {"files": plain})
    assert again.model.config._attn_implementation == kind
    assert logits(again).equal(logits(model))


# --- whole or not at all


def test_a_checkpoint_that_lacks_weights_is_refused_with_their_names(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "more", num_hidden_layers=3)
    with pytest.raises(StepError, match=r"no weights for model\.layers\.2\.\S+, .* and 6 more"):
        loaded(Files(folder), tmp_path)


def test_a_checkpoint_with_weights_of_another_shape_is_refused(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "wide", intermediate_size=96)
    with pytest.raises(StepError, match="mlp"):
        loaded(Files(folder), tmp_path)


def test_weights_without_a_place_are_said(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "less", num_hidden_layers=1)
    _, made = loaded(Files(folder), tmp_path)
    assert "left out: model.layers.1." in "\n".join(made.notes)


def test_torn_weights_are_refused(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "torn")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StepError, match="does not open as a model"):
        loaded(Files(folder), tmp_path)


# --- devices


@pytest.mark.parametrize("device_map", ["cpu", "auto", "sequential", {"": "cpu"}])
def test_where_the_weights_go_changes_nothing_of_the_model(device_map, plain, tmp_path):
    model, made = loaded(plain, tmp_path, device_map=device_map)
    assert made.facts["device"] == "cpu"
    one, _ = loaded(plain, tmp_path / "one")
    assert logits(model).equal(logits(one))
    assert model.settings == one.settings  # it is no part of the key


def test_a_kept_model_goes_where_it_is_wanted_now(plain, tmp_path):
    model, _ = loaded(plain, tmp_path, device_map="cpu")

    class Inputs(dict):
        options = load.Options(device_map="nowhere")

    with pytest.raises(StepError, match="nowhere"):
        kept(load, model, tmp_path / "kept", Inputs(files=plain))


def test_devices_and_sizes_that_are_none_are_refused():
    assert checked(device_map="gpu") == ['"gpu" is no device map: say cpu or cuda:0.']
    assert checked(device_map={"lm_head": "disk"}) == [
        '"disk" is no device for a module: say cpu or cuda:0.'
    ]
    assert "limits a device_map" in checked(max_memory={"cpu": "1GB"})[0]
    assert "is no size" in checked(device_map="auto", max_memory={"0": "lots"})[0]
    assert checked(device_map="auto", max_memory={"0": "20GB", "cpu": 10**9}) == []
    assert checked(device_map={"model": 0, "lm_head": "cuda:1"}) == []


# --- quantizing on the way


@pytest.mark.parametrize(
    "how",
    [
        {"method": "int8"},
        {"method": "nf4"},
        {"method": "fp4", "double_quantization": True},
        {"method": "nf4", "compute_dtype": "float32"},
    ],
)
def test_quantized_weights_are_the_same_after_use_from_the_store_and_when_saved(
    how, plain, tmp_path
):
    model, made = loaded(plain, tmp_path, quantization=how, dtype="bfloat16")
    assert made.facts["quantized"] == "bitsandbytes"
    assert made.facts["bytes"] < 2 * made.facts["parameters"]
    first = logits(model)  # the pass in which bitsandbytes would have repacked
    assert logits(kept(load, model, tmp_path / "kept", {"files": plain})).equal(first)
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, context(tmp_path / "s"))
    again, said = loaded(Files(tmp_path / "out"), tmp_path / "again")
    assert said.facts["quantized"] == "bitsandbytes"
    assert logits(again).equal(first)
    assert again.folder == tmp_path / "out"


def test_settings_that_mean_nothing_to_a_method_are_refused():
    assert checked(quantization={"method": "int8", "double_quantization": True}) == [
        "double_quantization means nothing to int8."
    ]
    assert checked(quantization={"method": "int8", "compute_dtype": "float32"}) == [
        "compute_dtype means nothing to int8."
    ]
    assert checked(quantization={"method": "nf4", "threshold": 5.0}) == [
        "threshold means nothing to nf4."
    ]


def test_weights_that_are_quantized_already_are_not_quantized_again(plain, tiny_model, tmp_path):
    model, _ = loaded(plain, tmp_path, quantization={"method": "nf4"}, dtype="bfloat16")
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, context(tmp_path / "s"))
    fact = "its weights are quantized with bitsandbytes already; leave quantization out."
    again = {"quantization": {"method": "int8"}}
    assert checked(fetch.Options(path=tmp_path / "out"), **again) == [f"{tmp_path / 'out'}: {fact}"]
    with pytest.raises(StepError, match="quantized with bitsandbytes already"):
        loaded(Files(tmp_path / "out"), tmp_path / "again", **again)


# --- checkpoints that are quantized already


def make_torchao(source: Path, folder: Path) -> None:
    pytest.importorskip("torchao", reason="an extra: torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    how = TorchAoConfig(Int8WeightOnlyConfig())
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype="bfloat16", quantization_config=how, device_map="cpu"
    )
    model.save_pretrained(folder)


def make_compressed(source: Path, folder: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="an extra: compressed-tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype="bfloat16")
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    how = QuantizationConfig(
        config_groups={"all": {"targets": ["Linear"], "weights": weights}},
        ignore=["lm_head"],
        format="pack-quantized",
        quantization_status="frozen",
    )
    apply_quantization_config(model, how)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            scale = module.weight.abs().amax(1, keepdim=True) / 127
            module.weight_scale.data = scale.to(module.weight_scale.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def make_gptq(source: Path, folder: Path) -> None:
    pytest.importorskip("gptqmodel", reason="an extra: gptq")
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    model = GPTQModel.load(str(source), QuantizeConfig(bits=4, group_size=32))
    ids = torch.arange(64)[None]
    model.quantize([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * 4, batch_size=1)
    model.save(str(folder))


FORMS = {"torchao": make_torchao, "compressed-tensors": make_compressed, "gptq": make_gptq}


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_checkpoint_loads_with_its_library_and_is_passed_on_unchanged(
    form, tiny_model, plain, tmp_path, monkeypatch
):
    monkeypatch.setenv("GPTQMODEL_CPU_WORKERS", "2")
    monkeypatch.chdir(tmp_path)  # gptqmodel writes logs where it stands
    folder = tmp_path / "made"
    FORMS[form](tiny_model, folder)
    for path in tiny_model.glob("*token*"):
        shutil.copy(path, folder)
    shutil.copy(tiny_model / "chat_template.jinja", folder)
    model, made = loaded(Files(folder), tmp_path, dtype="float32")
    assert made.facts["quantized"] == form
    assert made.facts["parameters"] == 107_072
    first = logits(model)
    assert (first - logits(loaded(plain, tmp_path / "p", dtype="float32")[0])).abs().max() < 0.5
    assert logits(kept(load, model, tmp_path / "kept", {"files": Files(folder)})).equal(first)
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, context(tmp_path / "s"))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    again, _ = loaded(Files(tmp_path / "out"), tmp_path / "again", dtype="float32")
    assert logits(again).equal(first)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "torchao"])
def test_a_missing_library_is_named_with_its_pip_line_before_anything_is_read(
    method, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr("runner.extras.find_spec", lambda name: None)
    folder = changed(tiny_model, tmp_path / "q", quantization_config={"quant_method": method})
    extra = {"awq": "gptq"}.get(method, method)
    (folder / "model.safetensors").write_bytes(b"never read")
    for said in (checked(fetch.Options(path=folder))[0], refusal(folder, tmp_path)):
        assert f"quantized with {method}, and" in said
        assert f'python -m pip install "recipe-runner[{extra}]"' in said


def refusal(folder: Path, place: Path) -> str:
    with pytest.raises(StepError) as error:
        loaded(Files(folder), place)
    return str(error.value)


# --- GGUF


def make_gguf(source: Path, folder: Path) -> Path:
    """Write the tiny model as a GGUF file of a Llama in float32 with a byte-level tokenizer."""
    import gguf
    import numpy as np
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(source)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(folder / "tiny.gguf"), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    for rare, merged in (("~", "th"), ("^", "he")):  # transformers reads no list of one merge
        tokens[tokens.index(rare)] = merged
    writer.add_token_list(tokens)
    writer.add_token_merges(["t h", "h e"])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(source / "model.safetensors").items():
        value = tensor.float().numpy()
        count = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        if count:  # llama.cpp turns pairs of the other half
            rows = value.shape[0] // count // 2
            value = value.reshape(count, 2, rows, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_a_gguf_file_loads_as_what_its_conversion_loads_as(tiny_model, tmp_path):
    from runner import convert

    source = make_gguf(tiny_model, tmp_path / "gguf")
    converted = tmp_path / "converted"
    shutil.copytree(source, converted)
    convert.to_safetensors(converted, print)
    for dtype in ("checkpoint", "float32"):
        ours, made = loaded(Files(source), tmp_path / dtype, dtype=dtype)
        theirs, _ = loaded(Files(converted), tmp_path / f"c{dtype}", dtype=dtype)
        assert logits(ours).equal(logits(theirs))
        assert made.facts["quantized"] is None
        assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
        assert ours.tokenizer.eos_token == theirs.tokenizer.eos_token == "<|im_end|>"
        assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
        again = kept(load, ours, tmp_path / f"kept-{dtype}", {"files": Files(source)})
        assert logits(again).equal(logits(ours))
    save.run(save.Options(to=tmp_path / "out"), {"model": ours}, context(tmp_path / "s"))
    assert logits(loaded(Files(tmp_path / "out"), tmp_path / "o")[0]).equal(logits(ours))


def test_a_gguf_file_is_quantized_anew_only_once_it_is_converted(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"never read")
    found = checked(fetch.Options(path=tmp_path), quantization={"method": "nf4"})
    assert "convert_gguf=true" in found[0]


def test_a_gguf_file_goes_onto_one_device(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"never read")
    assert "one device" in checked(fetch.Options(path=tmp_path), device_map="auto")[0]


# --- code of the repository's own

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tiny_model, tmp_path, monkeypatch) -> Files:
    """A repository whose classes come with it."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    folder = changed(tiny_model, tmp_path / "own", model_type="own", auto_map=names)
    (folder / "own.py").write_text(CODE)
    return Files(folder, {"repo": "acme/own", "commit": COMMIT})


TRUST = {"trust_remote_code": {"repo": "acme/own", "commit": COMMIT}}


def test_code_runs_where_the_recipe_names_its_repository_and_commit(own, plain, tmp_path):
    model, _ = loaded(own, tmp_path, dtype="float32", **TRUST)
    assert type(model.model).__name__ == "OwnModel"
    assert logits(model).equal(logits(loaded(plain, tmp_path / "p", dtype="float32")[0]))
    again = kept(load, model, tmp_path / "kept", {"files": own})
    assert logits(again).equal(logits(model))


def test_code_does_not_run_unless_it_is_trusted(own, tmp_path):
    (own.folder / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n" + CODE)
    with pytest.raises(StepError) as error:
        loaded(own, tmp_path)
    assert "brings code of its own" in str(error.value)
    assert f"load.trust_remote_code: {{repo: acme/own, commit: {COMMIT}}}" in str(error.value)
    other = Files(own.folder, {"repo": "acme/own", "commit": OTHER})
    with pytest.raises(StepError, match=f"are not acme/own at {COMMIT}"):
        loaded(other, tmp_path / "other", **TRUST)
    with pytest.raises(StepError, match="are not acme/own"):
        loaded(Files(own.folder), tmp_path / "local", **TRUST)
    assert not (tmp_path / "was-run").exists()


def test_code_in_another_repository_or_not_fetched_does_not_run(own, tmp_path):
    (own.folder / "own.py").unlink()
    with pytest.raises(StepError, match="was not fetched"):
        loaded(own, tmp_path, **TRUST)
    path = own.folder / "config.json"
    path.write_text(path.read_text().replace("own.OwnModel", "evil/repo--own.OwnModel"))
    with pytest.raises(StepError, match=r"evil/repo--own\.OwnModel lies in another repository"):
        loaded(own, tmp_path / "b", **TRUST)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"repo": "acme/own", "commit": COMMIT}, None),
        ({"repo": "acme/own", "revision": COMMIT}, None),
        ({"repo": "acme/own"}, f"Set fetch.model.commit={COMMIT}"),
        ({"repo": "acme/own", "commit": OTHER}, "does not say that it brings this commit"),
        ({"repo": "acme/other", "commit": COMMIT}, "brings acme/other, and acme/own is trusted"),
        ({"path": Path("here")}, "brings no repository"),
    ],
)
def test_trust_must_name_what_is_fetched(source, said):
    found = checked(fetch.Options(**source), **TRUST)
    assert (not found) if said is None else (said in found[0])


def test_trust_must_name_a_commit():
    trust = {"trust_remote_code": {"repo": "acme/own", "commit": "main"}}
    assert checked(fetch.Options(repo="acme/own", commit=COMMIT), **trust) == [
        '"main" is no commit: 40 digits of 0-9a-f.'
    ]
