"""The memory preflight: estimates against what tensors really take, and refusals before a fetch."""

import random

import pytest
from test_load import loaded

from runner import hardware, room
from runner.errors import StepError
from runner.memory import estimate, preflight, shape
from runner.memory.estimate import Answering, Estimate, Training
from runner.memory.heap import Heap
from runner.memory.preflight import Claim
from runner.memory.shape import Held
from runner.models import claim
from runner.options import build
from runner.products import Files
from runner.stages import fetch, load


@pytest.fixture
def config(tiny_model):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(tiny_model)


def train(config, device="cpu", **settings):
    use = {"rank": None, "micro_batch_size": 2, "max_length": 32} | settings
    return estimate.to_train(config, Held(dtype="float32"), Training(**use), device=device)


@pytest.mark.parametrize(
    ("how", "held"),
    [
        ({"dtype": "float32"}, Held(dtype="float32")),
        ({"dtype": "bfloat16"}, Held(dtype="bfloat16")),
        (
            {"dtype": "bfloat16", "quantization": {"method": "nf4"}},
            Held(dtype="bfloat16", method="nf4"),
        ),
        (
            {"dtype": "bfloat16", "quantization": {"method": "int8"}},
            Held(dtype="bfloat16", method="int8"),
        ),
    ],
)
def test_weights_are_estimated_to_what_is_really_held(how, held, config, tiny_model, tmp_path):
    _, made = loaded(Files(tiny_model), tmp_path, **how)
    said = shape.weights(shape.on_meta(config), held)
    assert said == pytest.approx(
        made.facts["bytes"], rel=0.03
    )  # tables of 4-bit codes are not told


def test_a_model_is_only_described_and_takes_no_memory(config):
    model = shape.on_meta(config)
    assert {each.device.type for each in model.parameters()} == {"meta"}
    assert shape.parameters(model) == 107_072


def test_activations_are_those_that_a_step_really_holds(config, tiny_model):
    """The same count over real tensors of a real step."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from transformers import AutoModelForCausalLM

    alive, most = {}, [0]

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    storage = each.untyped_storage()
                    if storage._cdata in weights:
                        continue
                    alive[storage._cdata] = (
                        torch.multiprocessing.reductions.StorageWeakRef(storage),
                        storage.nbytes(),
                    )
            for key in [k for k, (ref, _) in alive.items() if ref.expired()]:
                del alive[key]
            most[0] = max(most[0], sum(size for _, size in alive.values()))
            return found

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
    weights = {each.untyped_storage()._cdata for each in model.parameters()}
    ids = torch.randint(0, 200, (2, 32))
    with Count():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    found = train(config, device="cuda")
    assert found.activations + found.gradients == pytest.approx(most[0], rel=0.1)


def test_what_takes_more_is_estimated_as_more(config):
    plain = train(config)
    assert plain.gradients == plain.weights == 4 * 107_072
    assert plain.optimizer == 2 * plain.weights
    assert train(config, optimizer="adamw_8bit").optimizer * 4 == plain.optimizer
    lora = train(config, rank=4)
    assert lora.gradients < plain.gradients / 5
    assert train(config, rank=4, max_length=128).activations > 3 * lora.activations
    twice = train(config, "cuda", rank=4, max_length=128, gradient_checkpointing=True)
    assert twice.activations < train(config, "cuda", rank=4, max_length=128).activations


def test_on_the_cpu_there_are_holes_between_tensors(config):
    for use in ({"rank": 4}, {"rank": 4, "gradient_checkpointing": True}, {}):
        exact, grown = (train(config, device, **use).activations for device in ("cuda", "cpu"))
        assert exact < grown


def test_quantized_layers_leave_holes_where_they_are_unpacked(config):
    def activations(method, device="cpu", **use):
        training = Training(rank=4, micro_batch_size=2, max_length=32, **use)
        held = Held(dtype="bfloat16", method=method)
        return estimate.to_train(config, held, training, device=device).activations

    sizes = [2 * x.weight.numel() for x in shape.inner_layers(shape.on_meta(config, "bfloat16"))]
    assert activations("nf4") == activations(None) + sum(sizes)
    again = {"gradient_checkpointing": True}
    assert activations("nf4", **again) == activations(None, **again) + 2 * sum(sizes)
    assert activations("nf4", "cuda") == activations(None, "cuda") + max(sizes)
    kept = activations("int8", "cuda") - activations("nf4", "cuda")
    assert kept >= 2 * 32 * 2 * config.num_hidden_layers * config.intermediate_size


def test_blocks_of_a_heap_never_overlap():
    draw, heap, blocks = random.Random(4), Heap(), {}
    for number in range(3000):
        if blocks and draw.random() < 0.5:
            heap.give(*blocks.pop(draw.choice(list(blocks))))
        else:
            count = draw.choice([0, 8, 100, 5000, 70_000])
            blocks[number] = heap.take(count)
            assert blocks[number][1] >= count + 8
        rows = sorted(blocks.values())
        ends = [begin + size for begin, size in rows]
        assert all(end <= begin for end, (begin, _) in zip(ends, rows[1:], strict=False))
        assert max(ends, default=0) <= heap.size


def test_a_hole_is_filled_by_what_is_smaller_and_not_by_what_is_as_large():
    heap = Heap()
    blocks = [heap.take(10_000) for _ in range(50)]
    for each in blocks[::2]:
        heap.give(*each)
    before = heap.size
    for _ in range(25):
        heap.take(9_900)
    assert heap.size == before
    for each in blocks[1::2]:
        heap.give(*each)
    for _ in range(25):
        heap.take(10_000)
    assert heap.size > before


def test_the_cache_of_answers_grows_with_their_length(config):
    def answer(new):
        how = Answering(batch_size=3, prompt_length=10, max_new_tokens=new)
        return estimate.to_answer(config, Held(dtype="bfloat16"), how).cache

    layers, kv_heads, width = 2, 2, 16
    assert answer(30) == 3 * 40 * layers * 2 * kv_heads * width * 2
    assert answer(0) * 4 == answer(30)


def test_a_stage_that_asks_a_model_can_say_what_that_takes(tiny_model):
    size = sum(path.stat().st_size for path in tiny_model.glob("*.safetensors"))
    given = {"origin": {"folder": str(tiny_model)}, "bytes": size, "load": load.Options()}
    how = Answering(batch_size=4, prompt_length=50, max_new_tokens=30)
    found = claim.to_answer(given, how)
    assert found.estimate.weights in (2 * 107_072, 4 * 107_072)
    assert found.estimate.cache in (4 * 80 * 2 * 2 * 2 * 16 * each for each in (2, 4))
    assert found.try_instead == ["batch_size=2", "max_new_tokens=15"]
    assert claim.to_answer({**given, "origin": {}}, how) is None
    assert claim.to_answer({"bytes": size}, how) is None
    spread = {**given, "load": load.Options(device_map="auto")}
    assert claim.to_answer(spread, how) is None


def test_a_claim_that_does_not_fit_is_refused_with_figures_and_advice(monkeypatch):
    monkeypatch.setattr(hardware, "free_memory", lambda name: 10**9)
    small = Claim(estimate=Estimate(weights=3 * 10**8), device="cpu")
    assert preflight.shortage(small) is None
    large = Claim(
        estimate=Estimate(weights=2 * 10**9, gradients=10**9, mapped=10**12),
        device="cuda:0",
        try_instead=["adapt=qlora", "micro_batch_size=1"],
    )
    with pytest.raises(StepError) as error:
        preflight.refuse(large)
    assert str(error.value) == (
        "does not fit: it needs about 3.0 GB (weights 2.0 GB, gradients 1.0 GB), and cuda:0 has "
        "1.0 GB free. Of such estimates: on a CPU they came within 10 % of what was measured.\n"
        "  Try adapt=qlora, or micro_batch_size=1"
    )


def test_nobody_is_refused_where_nobody_can_tell(monkeypatch):
    monkeypatch.setattr(hardware, "free_memory", lambda name: None)
    assert preflight.shortage(Claim(estimate=Estimate(weights=10**15), device="cuda:7")) is None


def test_this_machine_says_how_much_is_free():
    free = hardware.free_memory("cpu")
    assert free is None or 10**8 < free < 10**14


def test_loading_what_does_not_fit_is_refused_before_a_weight_is_read(
    tiny_model, tmp_path, monkeypatch
):
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setattr(hardware, "free_memory", lambda name: 10**5)
    with pytest.raises(StepError, match="does not fit") as error:
        loaded(Files(folder), tmp_path, dtype="float32")
    assert "Try load.dtype=bfloat16, or load.quantization={method: nf4}" in str(error.value)
    with pytest.raises(StepError, match="does not open"):
        loaded(Files(folder), tmp_path / "anyway", preflight=False)


def test_a_run_is_refused_before_anything_is_fetched(tiny_model, tmp_path, monkeypatch):
    from tiny import make_recipe

    from runner import running

    recipe = make_recipe(tmp_path, tiny_model)
    monkeypatch.chdir(tmp_path)
    planned, store = running.prepare(str(recipe), ["load.dtype=float32"])
    room.check_memory(planned, store)
    monkeypatch.setattr(hardware, "free_memory", lambda name: 10**5)
    with pytest.raises(StepError, match="load: does not fit"):
        running.carry_out(planned, store, lambda event: None, tmp_path / "runs")
    assert not list(store.root.glob("entries/*"))


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """A Hub that has the tiny model, and an empty cache."""
    from hub import Repo, serve
    from huggingface_hub import close_session, constants

    with serve(Repo.of("acme/tiny", tiny_model)) as hub:
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub
        close_session()


def of_the_hub(commit):
    """What `load` claims of a repository of which nothing was fetched."""
    options, _ = build(fetch.Options, {"repo": "acme/tiny", "commit": commit})
    origin = fetch.room(options, {}).gives["origin"]
    return load.room(load.Options(), {"files": {"origin": origin}}).memory()


def test_only_the_configuration_of_a_hub_repository_is_fetched_for_it(hub):
    commit = hub.repos["model", "acme/tiny"].branches["main"].sha
    assert of_the_hub(commit).estimate.weights in (2 * 107_072, 4 * 107_072)
    assert {each.path for each in hub.asked()} == {f"/acme/tiny/resolve/{commit}/config.json"}


def test_a_repository_that_the_hub_does_not_give_is_not_guessed_at(hub):
    assert of_the_hub("0" * 40) is None
    hub.fault("config.json", status=401, times=9)
    assert of_the_hub(hub.repos["model", "acme/tiny"].branches["main"].sha) is None


def test_a_source_that_tells_nothing_yet_is_not_guessed_at():
    options, _ = build(fetch.Options, {"wheel": "a==1", "members": ["*"]})
    given = {"files": fetch.room(options, {}).gives}
    assert load.room(load.Options(), given).memory() is None
