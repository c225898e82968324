"""Several processes that train together: what they give, and what becomes of them when some die."""

import pytest
from safetensors.torch import load_file
from torch import randint, manual_seed

from runner.checkpoint import Checkpoints
from runner.products import Dataset, open_model
from runner.stage import Context
from runner.stages import adapt


def dataset(rows=22, packed=False):
    """Rows of unequal lengths, of which about half of the tokens are trained."""
    import datasets
    from runner.data import pack

    manual_seed(1)
    made = []
    for number in range(rows):
        ids = randint(0, 250, (4 + 7 * number % 40,)).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (len(ids) // 3) + ids[len(ids) // 3 :]})
    if packed:
        bins = pack.pack([len(row["input_ids"]) for row in made], 48)
        made = [dict(row) for row in pack.packed(made, bins)]
    train = datasets.Dataset.from_list(made)
    return Dataset(train=train, held_out=train.select([]))


class Say:
    """A step's context over a folder, and all that was said to it."""

    def __init__(self, folder):
        self.notes, self.rows, self.done, self.signal = [], [], [], None
        self.context = Context(
            draft=folder / "work",
            checkpoint=Checkpoints(folder / "checkpoints", self.notes.append),
            progress=lambda done, total, unit, **figures: self.done.append(done),
            note=self.notes.append,
            metrics=self.rows.append,
            stop_signal=lambda: self.signal,
        )
        self.context.draft.mkdir(parents=True, exist_ok=True)


def taught(model, data, folder, say=None, **options):
    """The folder of the adapter that the step saves."""
    import torch

    say = say or Say(folder)
    settings = {"rank": 4, "batch_size": 4, "epochs": 2.0, "checkpoint_every": 3, "devices": 1}
    inputs = {"model": open_model(model, dtype=torch.float32), "dataset": data}
    inputs["model"] = type(inputs["model"])(inputs["model"].model, inputs["model"].tokenizer)
    product = adapt.run(adapt.Options(**{**settings, **options}), inputs, say.context)
    (folder / "saved").mkdir()
    adapt.save(product, folder / "saved")
    return folder / "saved"


def difference(one, other):
    one, other = (load_file(each / "adapter_model.safetensors") for each in (one, other))
    assert {*one} == {*other}
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("packed", [False, True])
def test_two_processes_learn_what_one_learns(tiny_model, tmp_path, packed):
    data = dataset(packed=packed)
    one = taught(tiny_model, data, tmp_path / "one")
    two = taught(tiny_model, data, tmp_path / "two", devices=2)
    assert difference(one, two) < 1e-5
