"""Every method on tiny random models: what it trains, keeps, refuses, merges and goes on with."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import make_data

from runner import files, merging, products, quantized
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.products import Files, Model
from runner.stage import Context
from runner.stages import adapt, evaluate, generate, load, process, quantize, save
from runner.training import kinds, methods, sizes
from runner.training.methods import gradients, layers
from runner.training.settings import Options

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
QKVO, GATED = "k_proj o_proj q_proj v_proj", "down_proj gate_proj up_proj"
FUSED = "dense dense_4h_to_h dense_h_to_4h query_key_value"
ARCHITECTURES: dict[str, tuple[dict[str, Any], str, int]] = {
    "llama": (GROUPED, f"{GATED} {QKVO}", 14),
    "qwen2": ({"num_key_value_heads": 2}, f"{GATED} {QKVO}", 14),
    "qwen3": (GROUPED, f"{GATED} {QKVO}", 14),
    "gemma2": (GROUPED, f"{GATED} {QKVO}", 14),
    "gemma3_text": (GROUPED, f"{GATED} {QKVO}", 14),
    "mistral": (GROUPED, f"{GATED} {QKVO}", 14),
    "phi3": ({"num_key_value_heads": 2}, "down_proj gate_up_proj o_proj qkv_proj", 8),
    "gpt2": ({}, "c_attn c_fc c_proj", 8),
    "falcon": ({}, FUSED, 8),
    "gpt_neox": ({}, FUSED, 8),
    "mixtral": ({**GROUPED, "num_local_experts": 4}, QKVO, 8),
    "qwen2_moe": (
        {
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
        f"{GATED} {QKVO} shared_expert_gate",
        16,
    ),
    "qwen3_moe": (
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        QKVO,
        8,
    ),
}
"""Settings of each, the names of its linear layers, and how many there are."""
IN_LAYERS = ["lora", "rslora", "dora", "vera", "ia3"]
PROMPTS = ["prompt", "prefix"]
"""P-tuning is apart: what it gives is a prompt."""


def config_of(kind: str, **settings: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **{**SMALL, **ARCHITECTURES[kind][0], **settings})


def random_model(kind: str, **settings: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(kind, **settings)).eval()


def quiet(text: str) -> None:
    """A note that nobody reads."""


def attached(model: Any, **options: Any) -> Any:
    return methods.attach(model, Options(**options), quiet)


def stirred(model: Any) -> Any:
    """The model, as if it had been trained: no trained weight is what it began as."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.add_(torch.randn_like(each) * 0.05)
    return model.eval()


def logits(model: Any, length: int = 12) -> Any:
    import torch

    ids = torch.arange(1, 2 * length + 1).reshape(2, length)
    with torch.inference_mode():
        return model(input_ids=ids).logits[:, -length:]


def difference(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


def context(folder: Path) -> Context:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    made = Context(work, Checkpoints(folder / "checkpoints", notes.append), note=notes.append)
    made.notes = notes  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def dataset(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> products.Dataset:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder / "rows.jsonl")
    inputs = {"data": {"fetch.data": Files(folder)}, "tokenizer": Files(tiny_model)}
    return process.run(process.Options(held_out=8), inputs, context(tmp_path_factory.mktemp("p")))


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Any:
    """Loads the tiny model anew."""

    def opened(dtype: Any = "float32") -> Model:
        options = load.Options(dtype=dtype)
        return load.run(options, {"files": Files(tiny_model)}, context(tmp_path / "l"))

    return opened


@pytest.fixture
def trained(dataset: products.Dataset, tmp_path: Path) -> Any:
    """Trains a model for a few steps."""

    def run(model: Model, adapter: Path | None = None, **options: Any) -> Model:
        settings = {"max_steps": 3, "effective_batch_size": 4, "learning_rate": 1e-2, **options}
        inputs: dict[str, Any] = {"model": model, "dataset": dataset}
        inputs |= {"adapter": Files(adapter)} if adapter else {}
        made = context(tmp_path / "a")
        files.remove(tmp_path / "a" / "checkpoints")
        run.notes = made.notes  # type: ignore[attr-defined]
        return adapt.run(Options(**settings), inputs, made)

    return run


def kept(product: Model, folder: Path) -> Path:
    folder.mkdir(parents=True)
    adapt.save(product, folder)
    return folder


def restored(folder: Path, model: Model) -> Model:
    return adapt.restore(folder, {"model": model})


# --- which layers


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_auto_is_every_linear_layer_but_the_output_layer(kind):
    _, names, count = ARCHITECTURES[kind]
    model = attached(random_model(kind))
    assert sorted(model.peft_config["default"].target_modules) == sorted(names.split())
    assert len([name for name, _ in model.named_modules() if name.endswith(".lora_A")]) == count


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_skeleton_of_a_config_is_that_of_the_model(kind):
    model = random_model(kind)
    config = json.loads(model.config.to_json_string())
    assert layers.of_config(config) == layers.of_model(model)


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "ia3"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_adapter_is_the_same_read_back_and_merged_on_every_architecture(kind, method, tmp_path):
    model = stirred(attached(random_model(kind), method=method))
    before = logits(model)
    assert difference(before, logits(random_model(kind))) > 1e-3
    methods.write(model, tmp_path)
    read = methods.read(random_model(kind), tmp_path).eval()
    assert logits(read).equal(before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = merging.merged(model, quiet)
    assert not hasattr(whole, "peft_config")
    assert difference(logits(whole), before) < 1e-3


def test_names_and_regular_expressions_choose_layers():
    found = layers.of_model(random_model("llama"))

    def chosen(*wanted, **more):
        return layers.choose(found, Options(target_modules=wanted, **more)).layers

    assert len(chosen("q_proj")) == 2
    assert chosen("q_proj", "v_proj") == chosen("v_proj", "q_proj", "q_proj")
    assert chosen("layers.1.mlp.up_proj") == ("model.layers.1.mlp.up_proj",)
    assert len(chosen(r".*self_attn\.[qk]_proj")) == 4
    assert chosen("q_proj", layers=(1,)) == ("model.layers.1.self_attn.q_proj",)
    assert chosen("lm_head") == ("lm_head",)


def test_an_output_layer_that_is_tied_to_the_embeddings_cannot_be_named():
    tied = layers.of_model(random_model("gemma2"))
    with pytest.raises(StepError, match='"lm_head" fits no linear layer'):
        layers.choose(tied, Options(target_modules=("lm_head",)))


def test_a_name_that_fits_nothing_is_refused_with_the_names_that_do():
    found = layers.of_model(random_model("phi3"))
    with pytest.raises(StepError) as raised:
        layers.choose(found, Options(target_modules=("o_proj", "qkv_prj")))
    assert str(raised.value).splitlines() == [
        'target_modules: "qkv_prj" fits no linear layer of the model. Did you mean "qkv_proj"?',
        "  Its linear layers are named: o_proj, qkv_proj, gate_up_proj, down_proj, lm_head",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (2,)}, "there is no layer 2; there are from 0 to 1"),
        ({"target_modules": ("q_proj[",)}, "is no regular expression"),
        ({"initialization": "orthogonal", "rank": 3}, "takes an even rank"),
        ({"method": "ia3", "feedforward_modules": ("up",)}, "fits none of ia3's layers"),
    ],
)
def test_a_choice_that_the_model_does_not_have_is_refused(options, message):
    with pytest.raises(StepError, match=message):
        attached(random_model("llama"), **options)


def test_an_adapter_names_its_layers_as_short_as_can_be_and_nothing_else_fits_them():
    found = layers.of_model(random_model("gpt2"))
    wanted = layers.choose(found, Options(target_modules=(r".*mlp\.c_proj",))).layers
    assert layers.shortest(wanted, found.modules) == ["mlp.c_proj"]
    first = layers.choose(found, Options(layers=(0,))).layers
    assert layers.shortest(first, found.modules) == [
        "0.attn.c_attn",
        "0.attn.c_proj",
        "0.mlp.c_fc",
        "0.mlp.c_proj",
    ]


@pytest.mark.parametrize("also", [(), ("q_proj",)])
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_experts_are_adapted_where_they_are_named(kind, also, tmp_path):
    names = ("experts.down_proj", *also)
    model = stirred(attached(random_model(kind), target_modules=names, rank=4))
    form = model.peft_config["default"]
    assert [*form.target_parameters] == [
        "experts.down_proj" if kind == "qwen2_moe" else "down_proj"
    ]
    assert sorted(form.target_modules or ()) == [*also]
    before = logits(model)
    methods.write(model, tmp_path)
    assert logits(methods.read(random_model(kind), tmp_path)).equal(before)
    assert difference(logits(merging.merged(model, quiet)), before) < 1e-3


def test_experts_that_stay_as_they_are_are_said_and_dora_on_them_is_refused():
    notes: list[str] = []
    methods.attach(random_model("mixtral"), Options(), notes.append)
    assert notes == [
        "the experts (model.layers.0.mlp.experts.gate_up_proj, ...) stay as they are:"
        " no linear layers"
    ]
    for method, message in (("dora", "neither DoRA nor dropout"), ("ia3", "ia3 cannot adapt")):
        with pytest.raises(StepError, match=message):
            attached(random_model("mixtral"), method=method, target_modules=("down_proj",))


def test_layers_are_checked_as_soon_as_the_config_is_known(tiny_model, own_store):
    config = json.loads((tiny_model / "config.json").read_text())
    wrong = Options(target_modules=("q_projj",))
    assert sizes.room(wrong, {}).kept == 0
    for _ in range(2):  # the second time from memory
        with pytest.raises(StepError, match='Did you mean "q_proj"'):
            sizes.room(wrong, {"config": config})
    assert (own_store / "skeletons.json").exists()
    sizes.room(Options(target_modules=("q_proj",)), {"config": config})
    sizes.room(wrong, {"config": {**config, "model_type": "unheard_of"}})


def test_a_run_with_a_layer_that_is_not_there_ends_before_weights_are_read(
    tiny_model, own_store, tmp_path
):
    from tiny import make_recipe

    path = make_recipe(tmp_path, tiny_model, target_modules=["q_projj"])
    command = [sys.executable, "-m", "runner", "run", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'adapt: target_modules: "q_projj" fits no linear layer' in done.stdout + done.stderr
    assert not (own_store / "entries").exists()


# --- options


@pytest.mark.parametrize("method", kinds.KINDS)
def test_options_of_other_methods_are_refused_and_own_ones_are_not(method):
    values = {
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.1,
        "initialization": "gaussian",
        "layers": (0,),
        "feedforward_modules": ("down_proj",),
        "virtual_tokens": 4,
        "base": "nf4",
        "double_quantization": True,
        "master_weights": "loaded",
    }
    assert {*values} == {*kinds.SPECIAL}
    taken = kinds.KINDS[method].takes
    for name, value in values.items():
        faults = kinds.check(Options(method=method, **{name: value}), {})
        assert [fault.where for fault in faults] == ([] if name in taken else [(name,)])


def test_a_refusal_says_which_methods_have_the_option():
    (fault,) = kinds.check(Options(method="prompt", base="nf4"), {})
    assert fault.fact == "prompt has no base; qlora has it."
    assert fault.guess == "Leave base out, or take another method."


@pytest.mark.parametrize(
    ("options", "steps", "where"),
    [
        ({"method": "prompt", "merge": True}, {}, "merge"),
        ({"method": "full", "merge": True}, {}, "merge"),
        ({"method": "full", "target_modules": ("q_proj",)}, {}, "target_modules"),
        ({"target_modules": ()}, {}, "target_modules"),
        ({"target_modules": ("all-linear",)}, {}, "target_modules"),
        (
            {"method": "qlora", "base": "int8", "double_quantization": True},
            {},
            "double_quantization",
        ),
        ({"method": "full"}, {"adapter": {}}, "adapter"),
        ({"method": "full"}, {"model": {"quantization": {"method": "nf4"}}}, "method"),
        ({"method": "prefix"}, {"dataset": {"pack": True}}, "method"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(options, steps, where):
    inputs: Any = {
        role: (SimpleNamespace(name=role, stage_name="load", options=SimpleNamespace(**said)),)
        for role, said in steps.items()
    }
    assert [fault.where for fault in kinds.check(Options(**options), inputs)] == [(where,)]


@pytest.mark.parametrize(
    ("options", "model", "kept_bytes", "trained"),
    [
        ({}, {"linear_width": 100}, 3200, 3200),
        ({"method": "dora", "rank": 4}, {"linear_width": 100}, 2000, 2000),
        ({"method": "full"}, {"parameters": 1000, "dtype": "bfloat16"}, 2000, 4000),
        (
            {"method": "full", "master_weights": "loaded"},
            {"parameters": 1000, "dtype": "bfloat16"},
            2000,
            2000,
        ),
        ({"method": "full"}, {"bytes": 2000}, 2000, 4000),
        ({"merge": True}, {"parameters": 1000, "dtype": "float32", "linear_width": 1}, 4000, 32),
        ({"method": "prompt"}, {"linear_width": 100}, 0, 0),
    ],
)
def test_the_room_that_training_takes(options, model, kept_bytes, trained):
    found = sizes.room(Options(**options), model)
    assert (found.kept, found.work) == (kept_bytes, 9 * trained)
    if options.get("merge") or options.get("method") == "full":
        assert found.gives["bytes"] == kept_bytes


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_width_of_the_layers_is_what_an_adapter_of_rank_1_has(kind):
    width = products.linear_width(random_model(kind))
    adapted = attached(random_model(kind), rank=1)
    assert width == sum(each.numel() for each in adapted.parameters() if each.requires_grad)


# --- training


@pytest.mark.parametrize("method", [*IN_LAYERS, "qlora", *PROMPTS, "ptuning"])
def test_a_method_teaches_and_is_the_same_from_the_store(method, base, trained, dataset, tmp_path):
    rate = {"ia3": 0.1, "vera": 0.05, "prompt": 0.3, "prefix": 0.05}.get(method, 1e-2)
    made = trained(base(), method=method, learning_rate=rate, max_steps=6, warmup_steps=1)
    rows = list(dataset.train)
    after = evaluate.perplexity(made, rows, evaluate.Options(), lambda rows: None)
    with made.model.disable_adapter():
        before = evaluate.perplexity(made, rows, evaluate.Options(), lambda rows: None)
    assert after < before
    read = restored(kept(made, tmp_path / "k"), base())
    assert logits(read.model).equal(logits(made.model))
    assert files.manifest(kept(read, tmp_path / "k2")) == files.manifest(tmp_path / "k")


@pytest.mark.parametrize("held_in", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_base_is_the_same_from_the_store(held_in, dtype, base, trained, tmp_path):
    made = trained(base(dtype), method="qlora", base=held_in, double_quantization=None)
    assert quantized.description(made.model.get_base_model())["method"] == held_in
    folder = kept(made, tmp_path / "k")
    assert files.read_json(folder / "adapt.json")["held_in"]["method"] == held_in
    assert logits(restored(folder, base(dtype)).model).equal(logits(made.model))


def test_float32_weights_keep_updates_that_bfloat16_ones_lose(base, trained):
    import torch

    def changed(master: Any) -> float:
        model, rate = base("bfloat16"), {"learning_rate": 2e-5, "schedule": "constant"}
        before = model.model.model.layers[0].mlp.up_proj.weight.detach().clone()
        made = trained(model, method="full", master_weights=master, max_steps=8, **rate)
        after = made.model.model.layers[0].mlp.up_proj.weight
        assert after.dtype == torch.bfloat16
        return float((after != before).float().mean())

    assert changed(None) > 1.5 * changed("loaded") > 0


def test_training_all_weights_teaches_and_is_the_same_from_the_store(base, trained, tmp_path):
    first = base("bfloat16")
    untaught = logits(first.model)
    made = trained(first, method="full", learning_rate=1e-3)
    assert difference(logits(made.model), untaught) > 0.01
    assert made.reference is None
    read = restored(kept(made, tmp_path / "k"), base())
    assert logits(read.model).equal(logits(made.model))
    assert read.model.dtype == first.model.dtype
    targets = [tmp_path / "from-memory" / "model", tmp_path / "from-store" / "model"]
    for product, target in zip((made, read), targets, strict=True):
        save.run(save.Options(to=target), {"model": product}, context(tmp_path / "s"))
    assert files.manifest(targets[0]) == files.manifest(targets[1])


def test_embeddings_that_are_tied_stay_tied(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    random_model("gemma2").to(torch.bfloat16).save_pretrained(tmp_path / "before")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "before")
    came_in = methods.formats(model)
    trained = stirred(attached(model, method="full"))
    assert trained.lm_head.weight is trained.model.embed_tokens.weight
    assert trained.dtype == torch.float32
    whole = methods.finish(trained, Options(method="full"), came_in, quiet)
    assert whole.lm_head.weight is whole.model.embed_tokens.weight
    whole.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert logits(read).equal(logits(whole))
    assert read.lm_head.weight is read.model.embed_tokens.weight


# --- quantized bases


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("method", "double"), [("nf4", False), ("nf4", True), ("fp4", False), ("int8", False)]
)
def test_quantizing_in_place_gives_what_transformers_reads_as_quantized(
    method, double, dtype, tiny_model
):
    made = products.open_weights(tiny_model, dtype=dtype)
    quantized.quantize(made, method, double)
    how = quantized.config(method, double, dtype)
    read = products.open_weights(tiny_model, dtype=dtype, quantization_config=how)
    quantized.keep_layout(read)
    mine, theirs = made.state_dict(), read.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in mine.items())
    assert logits(made).equal(logits(read))
    said = {"method": method, "double_quantization": double}
    assert quantized.description(made) == quantized.description(read) == said


def test_quantizing_in_place_turns_conv1d_the_right_way_round():
    made = quantized.quantize(random_model("gpt2", n_embd=64), "int8", False)
    assert difference(logits(made), logits(random_model("gpt2", n_embd=64))) < 0.02


def test_an_architecture_that_bitsandbytes_does_not_know_is_refused():
    with pytest.raises(StepError, match="no layer of FalconForCausalLM to quantize"):
        attached(random_model("falcon"), method="qlora")


def test_a_base_that_is_quantized_already_is_taken_as_it_is(tiny_model, base, trained, tmp_path):
    def held() -> Model:
        return Model(quantized.quantize(base().model, "int8", False), base().tokenizer)

    for method in ("lora", "qlora"):
        made = trained(held(), method=method)
        assert quantized.description(made.model.get_base_model())["method"] == "int8"
        read = restored(kept(made, tmp_path / method), held())
        assert logits(read.model).equal(logits(made.model))
    with pytest.raises(StepError, match="held in int8 already, and base is nf4"):
        attached(held().model, method="qlora", base="nf4")
    with pytest.raises(StepError, match="full cannot train quantized weights"):
        attached(held().model, method="full")


def test_every_part_of_an_adapter_gets_a_gradient_on_a_base_that_was_used_before(base, trained):
    model = base("bfloat16")
    quantized.quantize(model.model, "nf4", False)
    logits(model.model)  # the forward pass in which bitsandbytes would have repacked
    assert trained(model, method="qlora").model


def test_an_adapter_that_a_gradient_does_not_reach_stops_training():
    model = attached(random_model("llama"))
    model.base_model.model.model.layers[0].register_forward_hook(lambda m, i, out: out.detach())
    with pytest.raises(StepError, match="no gradient reaches 7 of 14 parts of the adapter"):
        _first_step(model, quiet)


def test_an_expert_that_no_token_was_sent_to_is_only_said():
    model = attached(random_model("qwen2_moe"))
    model.base_model.model.model.layers[0].register_forward_hook(lambda m, i, out: out.detach())
    notes: list[str] = []
    _first_step(model, notes.append)
    assert notes[0].startswith("no gradient reaches 8 of 16 parts of the adapter: ")


def _first_step(model: Any, note: Any) -> None:
    import torch

    ids = torch.arange(24).reshape(2, 12)
    model(input_ids=ids, labels=ids).loss.backward()
    state = SimpleNamespace(global_step=0, max_steps=1)
    gradients.check(note).on_pre_optimizer_step(None, state, None, model=model)


# --- merging


@pytest.mark.parametrize("method", IN_LAYERS)
def test_a_merged_result_is_base_plus_adapter_and_the_same_from_the_store(
    method, base, trained, tmp_path
):
    apart = trained(base(), method=method, learning_rate=0.05)
    made = trained(base(), method=method, learning_rate=0.05, merge=True)
    assert not hasattr(made.model, "peft_config")
    assert difference(logits(made.model), logits(apart.model)) < 1e-3
    read = restored(kept(made, tmp_path / "k"), base())
    assert logits(read.model).equal(logits(made.model))


@pytest.mark.parametrize("held_in", ["nf4", "int8"])
def test_an_adapter_is_merged_into_the_weights_before_they_were_quantized(
    held_in, base, trained, tiny_model, tmp_path
):
    made = trained(base(), method="qlora", base=held_in)
    folder = kept(made, tmp_path / "k")
    notes: list[str] = []
    whole = merging.merged(made.model, notes.append)
    assert notes == [f"merged into the weights as they were before {held_in}, read again"]
    expected = methods.read(base().model, folder).eval()
    assert difference(logits(whole), logits(expected)) < 1e-3
    assert quantized.description(whole) is None


def test_an_adapter_is_merged_into_dequantized_weights_where_those_before_are_gone(base, trained):
    made = trained(base(), method="qlora")
    before = logits(made.model)
    made.model.get_base_model().config._name_or_path = ""
    notes: list[str] = []
    whole = merging.merged(made.model, notes.append)
    assert notes == ["merged into weights dequantized from nf4: those before it are not at hand"]
    assert difference(logits(whole), before) < 1e-3
    assert quantized.description(whole) is None


def test_what_was_changed_in_memory_is_never_merged_into_what_lies_on_disk(base, trained):
    """An adapter on a merged model that was quantized must not land on the first model."""
    merged_once = trained(base(), learning_rate=0.05, merge=True)
    made = trained(merged_once, method="qlora")
    before, notes = logits(made.model), []
    whole = merging.merged(made.model, notes.append)
    assert "dequantized" in notes[0]
    assert difference(logits(whole), before) < 1e-3


def test_merging_needs_no_second_copy_of_the_model():
    """Peak memory while 16 layers of 4 MB are merged: the model, and less than two layers more."""
    code = """
import resource, sys, torch
from transformers import AutoModelForCausalLM, LlamaConfig
from runner import merging
from runner.training import methods
from runner.training.settings import Options
kind = LlamaConfig(vocab_size=64, hidden_size=1024, intermediate_size=1024, num_hidden_layers=16,
                   num_attention_heads=8)
model = AutoModelForCausalLM.from_config(kind)
model = methods.attach(model, Options(rank=2), print)
size = sum(each.nbytes for each in model.parameters())
for each in model.parameters():
    each.data.add_(0)
open('/proc/self/clear_refs', 'w').write('5')  # the peak from here on
def peak(name):
    text = open('/proc/self/status').read()
    return int(text.split(name + ':')[1].split()[0]) * 1024
before = peak('VmRSS')
merging.merged(model, print)
print((peak('VmHWM') - before) / size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.15


@pytest.mark.parametrize("method", ["dora", "qlora"])
def test_save_writes_the_merged_model_and_quantize_squeezes_it(method, base, trained, tmp_path):
    made = trained(base(), method=method)
    folder = kept(made, tmp_path / "k")
    expected = logits(methods.read(base().model, folder).eval())
    save.run(save.Options(to=tmp_path / "saved"), {"model": made}, context(tmp_path / "s"))
    assert difference(logits(products.open_weights(tmp_path / "saved")), expected) < 1e-3
    again = context(tmp_path / "q")
    quantize.run(quantize.Options(method="int8"), {"model": restored(folder, base())}, again)
    assert again.facts["bytes_after"] < again.facts["bytes_before"]


@pytest.mark.parametrize("method", [*PROMPTS, "ptuning"])
def test_a_trained_prompt_is_saved_alone_answers_and_is_not_merged(
    method, base, trained, dataset, tmp_path
):
    from peft import PeftModel

    made = trained(base(), method=method)
    options = generate.Options(max_new_tokens=3, rows=2)
    inputs = {"model": made, "dataset": dataset}
    rows = generate.run(options, inputs, context(tmp_path / "g"))
    assert len(rows) == 2
    with pytest.raises(StepError, match="cannot be merged"):
        merging.merged(made.model, quiet)
    save.run(save.Options(to=tmp_path / "saved"), {"model": made}, context(tmp_path / "s"))
    opened = PeftModel.from_pretrained(base().model, tmp_path / "saved").eval()
    assert logits(opened).equal(logits(made.model))
    assert products.open_tokenizer(tmp_path / "saved").chat_template


# --- going on with an adapter


@pytest.mark.parametrize("method", ["dora", "vera", *PROMPTS])
def test_training_goes_on_with_an_adapter_that_was_fetched(method, base, trained, tmp_path):
    own = {"rank": 4} if method in ("lora", "dora", "vera") else {}
    first = trained(base(), method=method, **own)
    folder = kept(first, tmp_path / "first")
    further = methods.attach(base().model, Options(method=method), quiet, folder)
    assert logits(further.eval()).equal(logits(first.model))
    made = trained(base(), adapter=folder, method=method)
    assert difference(logits(made.model), logits(first.model)) > 1e-4
    form = made.model.peft_config["default"]
    assert getattr(form, "r", 4) == 4
    read = restored(kept(made, tmp_path / "second"), base())
    assert logits(read.model).equal(logits(made.model))


def test_training_goes_on_with_the_adapter_that_a_model_has(base, trained, tmp_path):
    first = trained(base(), rank=4)
    folder, before = kept(first, tmp_path / "first"), logits(first.model)
    second = trained(first)
    assert second.model.peft_config["default"].r == 4
    assert difference(logits(second.model), before) > 1e-4
    read = restored(kept(second, tmp_path / "second"), restored(folder, base()))
    assert logits(read.model).equal(logits(second.model))
    same = trained(restored(folder, base()))
    assert logits(same.model).equal(logits(second.model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 8}, "rank is 8, and the adapter to go on with has 4"),
        ({"alpha": 1.0}, "alpha is 1.0, and the adapter to go on with has 16.0"),
        ({"dropout": 0.5}, "dropout is 0.5"),
        ({"method": "dora"}, "the adapter to go on with is lora, and the method is dora"),
        ({"target_modules": ("q_proj",)}, "target_modules is for a new adapter"),
        ({"layers": (0,)}, "layers is for a new adapter"),
        ({"initialization": "gaussian"}, "initialization is for a new adapter"),
    ],
)
def test_options_that_contradict_the_adapter_are_refused(options, message, tmp_path):
    methods.write(attached(random_model("llama"), rank=4), tmp_path)
    with pytest.raises(StepError, match=message):
        methods.attach(random_model("llama"), Options(**options), quiet, tmp_path)
    assert methods.attach(random_model("llama"), Options(rank=4), quiet, tmp_path)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    methods.write(attached(random_model("llama")), tmp_path)
    with pytest.raises(StepError, match="the adapter does not fit this model"):
        methods.attach(random_model("llama", hidden_size=64), Options(), quiet, tmp_path)
    with pytest.raises(StepError, match="does not fit this model"):
        methods.attach(random_model("llama", num_hidden_layers=1), Options(), quiet, tmp_path)


def test_pickled_adapters_and_folders_without_one_are_refused(tmp_path):
    with pytest.raises(StepError, match="holds no adapter"):
        methods.attach(random_model("llama"), Options(), quiet, tmp_path)
    methods.write(attached(random_model("llama")), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(StepError, match="holds no adapter"):
        methods.attach(random_model("llama"), Options(), quiet, tmp_path)


def test_an_adapter_that_rewrote_its_base_is_refused(tmp_path):
    methods.write(attached(random_model("llama")), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({**config, "init_lora_weights": "pissa"})
    )
    with pytest.raises(StepError, match="the adapter began by pissa"):
        methods.attach(random_model("llama"), Options(), quiet, tmp_path)


def test_what_ptuning_gives_is_a_prompt_to_go_on_with_as_such(base, trained, tmp_path):
    made = trained(base(), method="ptuning", virtual_tokens=3)
    folder = kept(made, tmp_path / "k")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)
    further = methods.attach(base().model, Options(method="prompt"), quiet, folder)
    assert logits(further.eval()).equal(logits(made.model))
    with pytest.raises(StepError, match="is prompt, and the method is ptuning"):
        methods.attach(base().model, Options(method="ptuning"), quiet, folder)


def test_an_encoder_of_ptuning_that_was_fetched_is_not_gone_on_with(tmp_path):
    attached(random_model("llama"), method="ptuning").save_pretrained(tmp_path)
    with pytest.raises(StepError, match="adapters of kind P_TUNING cannot be gone on with"):
        methods.attach(random_model("llama"), Options(method="ptuning"), quiet, tmp_path)


# --- what is written


def test_adapters_are_the_same_bytes_in_every_process_and_open_with_peft_alone(
    tiny_model, tmp_path
):
    write = """
import sys, torch
from pathlib import Path
from runner import products
from runner.training import methods
from runner.training.settings import Options
for method in sys.argv[3:]:
    torch.manual_seed(3)
    model = products.open_weights(Path(sys.argv[1]), dtype="float32")
    model = methods.attach(model, Options(method=method), print)
    reference = {"repo": "user/model", "commit": "c" * 40}
    methods.write(model, Path(sys.argv[2]) / method, reference)
"""
    known, found = [*IN_LAYERS, *PROMPTS], []
    for name in ("one", "other"):
        folder = tmp_path / name
        subprocess.run(
            [sys.executable, "-c", write, str(tiny_model), str(folder), *known], check=True
        )
        found.append(files.manifest(folder))
    assert found[0] == found[1]
    assert {*found[0]} == {
        f"{method}/adapter_{what}"
        for method in known
        for what in ("config.json", "model.safetensors")
    }
    for method in known:
        config = json.loads((tmp_path / "one" / method / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("user/model", "c" * 40)
        assert str(tmp_path) not in json.dumps(config)
    read = """
import sys, torch, peft, transformers
for method in sys.argv[3:]:
    base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, sys.argv[2] + "/" + method).eval()
    model(input_ids=torch.arange(1, 9)[None])
assert not [name for name in sys.modules if name.startswith("runner")]
"""
    arguments = [str(tiny_model), str(tmp_path / "one"), *known]
    done = subprocess.run([sys.executable, "-c", read, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_adapter_names_the_repository_that_its_base_came_from(dataset, tiny_model, tmp_path):
    reference = {"repo": "user/model", "commit": "c" * 40}
    source = Files(tiny_model, reference)
    loaded = load.run(load.Options(dtype="float32"), {"files": source}, context(tmp_path / "l"))
    inputs = {"model": loaded, "dataset": dataset}
    made = adapt.run(Options(max_steps=1, effective_batch_size=4), inputs, context(tmp_path / "a"))
    folder = kept(made, tmp_path / "k")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "user/model"
    (tmp_path / "load").mkdir()
    load.save(loaded, tmp_path / "load")
    again = load.restore(tmp_path / "load", {"files": source})
    read = restored(folder, again)
    assert files.manifest(kept(read, tmp_path / "k2")) == files.manifest(folder)
