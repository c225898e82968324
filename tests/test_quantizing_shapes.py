"""Groups that do not fit a model's layers are found from its configuration."""

import pytest

from runner.errors import StepError
from runner.quantizing import shapes
from runner.quantizing.methods import resolved
from runner.quantizing.settings import Options


def config(kind="llama", **changes):
    from transformers import AutoConfig

    if kind == "llama":
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32}
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        changes = heads | sizes | changes
    return AutoConfig.for_model(kind, **changes)


def options(**given):
    return resolved(Options(**given))


def test_a_size_that_does_not_divide_is_told_with_those_that_do():
    said = shapes.fault(config(), options(method="gptq", group_size=64))
    assert said == (
        "group_size 64 does not divide the 96 inputs of model.layers.0.mlp.down_proj and 1 more;"
        " sizes that do: -1, 32."
    )


def test_sizes_that_divide_and_whole_rows_and_methods_without_groups_fit():
    for size in (32, -1):
        assert shapes.fault(config(), options(method="gptq", group_size=size)) is None
    for method in ("nf4", "fp8", "w8a8", "torchao-int8", "none"):
        assert shapes.fault(config(), options(method=method)) is None


def test_layers_that_are_let_be_do_not_count():
    skipping = options(method="torchao-int4", group_size=64, skip=("down_proj",))
    assert shapes.fault(config(), skipping) is None


def test_the_output_layer_does_not_count():
    assert shapes.fault(config(), options(method="awq", group_size=32)) is None
    narrow = config(kind="gpt2", n_embd=48, n_layer=1, n_head=2)
    said = shapes.fault(narrow, options(method="gptq", group_size=32))
    assert said is not None
    assert "48 inputs of transformer.h.0.attn.c_attn" in said


def test_where_nothing_fits_it_is_said_and_insisted_on():
    with pytest.raises(StepError, match=r"90 inputs of .*; none does"):
        shapes.insist(config(intermediate_size=90), options(method="torchao-int4", group_size=64))
