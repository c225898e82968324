"""GGUF files: the same logits and tokens as in transformers, read by it and by llama.cpp."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf_models
import pytest

from runner.errors import StepError
from runner.gguf import kinds, reading, splitting, writing

READ_BY_TRANSFORMERS = [
    "llama",
    "mistral",
    "qwen2",
    "qwen2-tied",
    "qwen3",
    "gemma2",
    "gemma3",
]
"""Of gguf_models.MODELS, those of which transformers' own reader misses nothing."""
CUTS = [*splitting.NAMES.values(), "pieces", "pieces-prefix"]
MARKS = gguf_models.TEXTS[6]
ROWS = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder and float32 file of a tiny model, made once."""
    place, known = tmp_path_factory.mktemp("gguf"), {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in known:
            folder = gguf_models.make_model(place / name, name)
            known[name] = folder, write(folder, place / f"{name}.gguf", "f32")
        return known[name]

    return make


def write(folder: Path, target: Path, kind: str, notes: list[str] | None = None) -> Path:
    said = [] if notes is None else notes
    writing.write(folder, target, kind, lambda done, total, unit: None, said.append)
    return target


def logits(folder: Path, **settings: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **settings
    )
    with torch.no_grad():
        return model(tokens()).logits[0].numpy()


def tokens() -> Any:
    import torch

    return torch.randint(5, 590, (1, ROWS), generator=torch.Generator().manual_seed(1))


def opened(file: Path, **settings: Any) -> Iterator[Any]:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    llama = llama_cpp.Llama(str(file), verbose=False, n_ctx=ROWS, n_batch=ROWS, **settings)
    try:
        yield llama
    finally:
        llama.close()


@pytest.mark.parametrize("name", READ_BY_TRANSFORMERS)
def test_transformers_computes_the_same_logits_from_the_file(made, name):
    folder, file = made(name)
    assert reading.lost_in_transformers(folder, file) == []
    assert abs(logits(folder) - logits(file.parent, gguf_file=file.name)).max() == 0


@pytest.mark.parametrize("name", sorted(set(gguf_models.MODELS) - set(READ_BY_TRANSFORMERS)))
def test_what_transformers_misses_in_the_file_is_named(made, name):
    folder, file = made(name)
    assert reading.lost_in_transformers(folder, file)
    assert abs(logits(folder) - logits(file.parent, gguf_file=file.name)).max() > 1


@pytest.mark.parametrize("name", gguf_models.MODELS)
def test_llama_computes_the_same_logits_from_the_file(made, name):
    folder, file = made(name)
    whole = logits(folder)
    for llama in opened(file, logits_all=True, type_k=0, type_v=0):
        llama.eval(tokens()[0].tolist())
        # llama.cpp looks GELU up in a table of 16 bits; all else is float32
        tolerance = 5e-3 if name.startswith("gemma") else 1e-4
        assert abs(whole - llama.scores[:ROWS]).max() < tolerance


@pytest.mark.parametrize("cuts", CUTS)
def test_llama_cuts_every_text_into_the_same_tokens(tmp_path, cuts):
    from transformers import AutoTokenizer

    folder = gguf_models.make_model(tmp_path / "model", "llama", cuts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    file = write(folder, tmp_path / "model.gguf", "f16")
    texts = [*gguf_models.TEXTS, f"call {gguf_models.ADDED} now{gguf_models.ADDED}"]
    for llama in opened(file, vocab_only=True):
        for text in texts:
            if cuts != "tekken" or text != MARKS:
                found = llama.tokenize(text.encode(), add_bos=True, special=True)
                assert found == tokenizer.encode(text), text


@pytest.mark.parametrize("cuts", ["gpt-2", "smollm", "pieces-prefix"])
def test_transformers_cuts_texts_into_the_same_tokens(tmp_path, cuts):
    from transformers import AutoTokenizer

    from runner.convert import open_gguf_tokenizer

    folder = gguf_models.make_model(tmp_path / "model", "llama", cuts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    read = open_gguf_tokenizer(write(folder, tmp_path / "model.gguf", "f16"))
    for text in gguf_models.TEXTS:
        assert read.encode(text) == tokenizer.encode(text), text
    assert read.chat_template == tokenizer.chat_template


def test_llama_applies_the_chat_template_of_the_file(made):
    from transformers import AutoTokenizer

    folder, file = made("llama")
    chat = [{"role": "user", "content": "say 2"}]
    wanted = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        chat, add_generation_prompt=True, tokenize=False
    )
    for llama in opened(file):
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = llama.metadata["tokenizer.chat_template"]
        formatter = Jinja2ChatFormatter(template, eos_token="", bos_token="")
        assert formatter(messages=chat).prompt == wanted
        assert llama.token_eos() == AutoTokenizer.from_pretrained(folder).eos_token_id


@pytest.mark.parametrize("kind", [name for name, kind in kinds.KINDS.items() if kind.matrices])
def test_the_same_folder_gives_the_same_bytes(made, tmp_path, kind):
    folder, _ = made("llama")
    one, other = (write(folder, tmp_path / name, kind) for name in ("one.gguf", "other.gguf"))
    assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one.gguf", "other.gguf"]


@pytest.mark.parametrize(("kind", "error"), [("q8_0", 0.01), ("q5_0", 0.1), ("q4_1", 0.2)])
def test_matrices_of_few_bits_are_near_the_whole_ones(made, tmp_path, kind, error):
    import gguf
    import numpy as np

    folder, whole = made("llama")
    found = {t.name: t for t in gguf.GGUFReader(write(folder, tmp_path / "f.gguf", kind)).tensors}
    for tensor in gguf.GGUFReader(whole).tensors:
        values = gguf.dequantize(found[tensor.name].data, found[tensor.name].tensor_type)
        assert values.shape == tensor.data.shape
        distance = np.linalg.norm(values - tensor.data) / np.linalg.norm(tensor.data)
        assert distance < error
        wanted = kinds.KINDS[kind].ends if tensor.name == "output.weight" else None
        assert wanted is None or found[tensor.name].tensor_type.name == wanted


@pytest.mark.parametrize("kind", ["q4_k_m", "q6_k"])
def test_llama_makes_its_own_kinds_the_same_each_time(tmp_path, kind):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder, notes = gguf_models.make_model(tmp_path / "model", "llama", dtype="bfloat16"), []
    one, other = (write(folder, tmp_path / name, kind, notes) for name in ("one.gguf", "two.gguf"))
    assert one.read_bytes() == other.read_bytes()
    assert "rows that 256 does not divide" in notes[0]  # rows of 64 and 96
    assert len(list(tmp_path.iterdir())) == 3


def test_weights_of_a_model_in_shards_are_all_written(made, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    folder, whole = made("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shutil.copytree(folder, tmp_path / "shards", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    file = write(tmp_path / "shards", tmp_path / "shards.gguf", "f32")
    assert file.read_bytes() == whole.read_bytes()


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | settings))
    return target


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "gpt2"}, "there are llama, mistral, qwen2, qwen3, gemma2, gemma3_text"),
        ({"hidden_act": "relu"}, "activation"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "posit"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized already"),
    ],
)
def test_a_model_that_llama_would_compute_otherwise_is_refused(made, tmp_path, settings, said):
    folder = changed(made("llama")[0], tmp_path / "model", **settings)
    with pytest.raises(StepError, match=said):
        write(folder, tmp_path / "f.gguf", "f32")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "settings",
    [
        {"query_pre_attn_scalar": 100},
        {"layer_types": ["full_attention"] * 3},
        {"tie_word_embeddings": False},
    ],
)
def test_a_gemma_of_another_form_is_refused(made, tmp_path, settings):
    folder = changed(made("gemma2")[0], tmp_path / "model", **settings)
    assert len(writing.problems(folder)) == 1


def test_a_window_in_every_layer_shortens_the_context_and_is_told(made, tmp_path):
    import gguf

    folder, notes = changed(made("mistral")[0], tmp_path / "model", sliding_window=64), []
    file = write(folder, tmp_path / "f.gguf", "f32", notes)
    assert gguf.GGUFReader(file).fields["llama.context_length"].contents() == 64
    assert "64 tokens" in notes[0]


def test_numbers_too_large_for_16_bits_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = gguf_models.make_model(tmp_path / "model", "llama", dtype="bfloat16")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StepError, match=r"blk.1.ffn_up.weight holds numbers that F16 cannot"):
        write(folder, tmp_path / "f.gguf", "f16")
    assert write(folder, tmp_path / "f.gguf", "bf16").exists()


def test_a_model_without_all_its_weights_is_refused(made, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(made("llama")[0], folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: values for name, values in weights.items() if ".layers.1." not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StepError, match="weights are missing: 2 layers"):
        write(folder, tmp_path / "f.gguf", "f32")


def test_an_unknown_kind_is_told_with_those_that_there_are():
    assert 'Did you mean "q4_k_m"?' in str(kinds.problem("q4_km"))
    assert kinds.problem("q8_0") is None


def test_a_model_without_a_tokenizer_is_refused(made, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(made("llama")[0], folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(StepError, match=r"has no tokenizer\.json"):
        write(folder, tmp_path / "f.gguf", "f32")


def test_weights_in_another_form_beside_them_are_left_out(made, tmp_path):
    folder, whole = made("llama")
    shutil.copytree(folder, tmp_path / "model")
    shutil.copy(folder / "model.safetensors", tmp_path / "model" / "consolidated.safetensors")
    assert write(tmp_path / "model", tmp_path / "f.gguf", "f32").read_bytes() == whole.read_bytes()


def test_a_tokenizer_that_cuts_in_a_way_unknown_to_llama_is_refused(made, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(made("llama")[0], folder)
    found = json.loads((folder / "tokenizer.json").read_text())
    found["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, found["pre_tokenizer"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(StepError, match="no name for the way"):
        write(folder, tmp_path / "f.gguf", "f32")


def test_what_progress_raises_ends_the_work_and_leaves_nothing(made, tmp_path):
    def stop(done: float, total: float, unit: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.write(made("llama")[0], tmp_path / "f.gguf", "f32", stop, print)
    assert not list(tmp_path.iterdir())
