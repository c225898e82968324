"""Every objective on a tiny model: its loss, what it refuses, and that a stop costs nothing."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lessons import Crash

from runner import files
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.products import Dataset, Files, Model
from runner.stage import Context
from runner.stages import adapt, evaluate, generate, load, quantize, save
from runner.training import objectives, saving
from runner.training.objectives import dpo, grpo, kto, orpo, rewards
from runner.training.objectives.given import Given
from runner.training.settings import Options, Reward

SCORER = """
def letters(prompts, completions, expected):
    assert all(text.endswith("assistant\\n") for text in prompts)
    return [sum(letter in "abcdefghijklmnopqrstuvwxyz" for letter in text) for text in completions]

def shorter(prompts, completions, expected):
    return [-len(text) / 10 for text in completions]

def fails(prompts, completions, expected):
    return [1 / 0 for text in completions]

def too_few(prompts, completions, expected):
    return [1.0]

def no_number(prompts, completions, expected):
    return ["good"] * len(completions)
"""


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Model:
    return opened(tiny_model, tmp_path / "base")


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    path = tmp_path / "reward.py"
    path.write_text(SCORER, encoding="utf-8")
    return path


def opened(folder: Path, work: Path) -> Model:
    return load.run(load.Options(dtype="float32"), {"files": Files(folder)}, context(work))


def context(folder: Path, **settings: Any) -> Context:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    return Context(draft=work, checkpoint=Checkpoints(folder / "checkpoints", print), **settings)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def dataset_of(kind: str, tokenizer: Any, count: int = 24) -> Dataset:
    """Rows of an objective's kind; the better answer says `yes`, the worse one more than that."""
    from datasets import Dataset as Rows

    found = []
    for number in range(count):
        asked = f"<|im_start|>user\nsay {number}<|im_end|>\n<|im_start|>assistant\n"
        prompt = ids(tokenizer, asked)
        good = ids(tokenizer, "yes<|im_end|>")
        bad = ids(tokenizer, f"no{'o' * (number % 5)}<|im_end|>")
        if kind == "preference":
            found.append({"prompt_ids": prompt, "chosen_ids": good, "rejected_ids": bad})
        elif kind == "unpaired":
            is_good = number % 3 != 0
            answer = good if is_good else bad
            found.append({"prompt_ids": prompt, "completion_ids": answer, "label": is_good})
        else:
            labels = [-100] * len(prompt) + good
            found.append({"input_ids": prompt + good, "labels": labels})
    rows = Rows.from_list(found)
    return Dataset(train=rows, held_out=rows.select(range(4)))


def settings_of(objective: str, scorer: Path, **changed: Any) -> Options:
    own: dict[str, Any] = {"objective": objective, "effective_batch_size": 4, "learning_rate": 5e-3}
    if objective == "grpo":
        own["rewards"] = (Reward(path=f"{scorer}:letters"),)
        own |= {"generations": 4, "max_new_tokens": 8}
    return objectives.resolve(Options(**own | {"warmup_steps": 0, "rank": 4} | changed))


def trained(options: Options, model: Model, folder: Path, **settings: Any) -> tuple[Model, list]:
    """The model taught, and the rows of its metrics."""
    rows: list[dict[str, Any]] = []
    dataset = dataset_of(objectives.TABLE[options.objective].ROWS, model.tokenizer)
    made = context(folder, metrics=rows.append, **settings)
    product = adapt.run(options, {"model": model, "dataset": dataset}, made)
    return product, [row for row in rows if "loss" in row]


# --- what the losses are


def said(model: Any, row: dict[str, list[int]], name: str) -> float:
    """The log-probability of a row's answer, by hand."""
    import torch

    prompt, answer = row["prompt_ids"], row[name]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    return sum(logits[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


def test_dpo_begins_with_the_loss_of_a_model_that_is_its_reference(base, scorer, tmp_path):
    _, rows = trained(settings_of("dpo", scorer, max_steps=1), base, tmp_path / "a")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["rewards/margins"] == 0


def test_the_loss_of_dpo_is_that_of_the_paper(base, tiny_model, scorer, tmp_path):
    options = settings_of("dpo", scorer, beta=0.3, effective_batch_size=24, schedule="constant")
    first, _ = trained(replace(options, max_steps=1), base, tmp_path / "a")
    again = opened(tiny_model, tmp_path / "again")
    _, rows = trained(replace(options, max_steps=2), again, tmp_path / "b")
    margins = []
    for row in dataset_of("preference", base.tokenizer).train:
        policy = said(first.model, row, "chosen_ids") - said(first.model, row, "rejected_ids")
        with first.model.disable_adapter():
            was = said(first.model, row, "chosen_ids") - said(first.model, row, "rejected_ids")
        margins.append(0.3 * (policy - was))
    by_hand = sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)
    assert rows[1]["loss"] == pytest.approx(by_hand, rel=1e-4)
    assert rows[1]["rewards/margins"] == pytest.approx(sum(margins) / len(margins), rel=1e-3)


@pytest.mark.parametrize("method", ["an adapter", "a whole model"])
def test_margins_rise_with_dpo(method, base, scorer, tmp_path):
    whole = {"method": "full", "rank": None, "learning_rate": 5e-4}
    given = whole if method == "a whole model" else {}
    _, rows = trained(settings_of("dpo", scorer, max_steps=30, **given), base, tmp_path / "a")
    assert rows[-1]["rewards/margins"] > 0.05 > rows[0]["rewards/margins"]
    assert rows[-1]["loss"] < math.log(2) - 0.02


def whole_trainer(
    options: Options, model: Model, dataset: Dataset, folder: Path, callbacks: tuple[Any, ...] = ()
) -> Any:
    arguments = {
        "output_dir": str(folder / "trainer"),
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.effective_batch_size,
        "learning_rate": options.learning_rate / 10,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": options.seed,
    }
    return objectives.trainer(
        Given(
            options=options,
            model=model.model,
            tokenizer=model.tokenizer,
            dataset=dataset,
            arguments=arguments,
            callbacks=list(callbacks),
        )
    )


@pytest.mark.parametrize("loss", dpo.LOSSES)
def test_every_loss_of_dpo_learns(loss, base, scorer, tmp_path):
    options = settings_of("dpo", scorer, loss=loss, max_steps=6, effective_batch_size=24)
    _, rows = trained(options, base, tmp_path / "a")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["rewards/margins"] > 0


def test_the_better_answers_count_too_where_that_is_wanted(base, tiny_model, scorer, tmp_path):
    options = settings_of("dpo", scorer, max_steps=1, effective_batch_size=24)
    _, plain = trained(options, base, tmp_path / "a")
    again = opened(tiny_model, tmp_path / "again")
    row = dataset_of("preference", base.tokenizer).train
    tokens = sum(len(each["chosen_ids"]) for each in row)
    nll = -sum(said(again.model, each, "chosen_ids") for each in row) / tokens
    _, both = trained(replace(options, sft_weight=0.5), again, tmp_path / "b")
    assert both[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * nll, rel=1e-5)


def test_the_loss_of_orpo_is_that_of_the_paper(base, scorer, tmp_path):
    options = settings_of("orpo", scorer, max_steps=1, effective_batch_size=24, beta=0.7)
    by_hand = []
    for row in dataset_of("preference", base.tokenizer).train:
        better = said(base.model, row, "chosen_ids") / len(row["chosen_ids"])
        worse = said(base.model, row, "rejected_ids") / len(row["rejected_ids"])
        odds = [math.exp(each) / (1 - math.exp(each)) for each in (better, worse)]
        ratio = math.log(odds[0] / odds[1])
        by_hand.append(-better + 0.7 * math.log1p(math.exp(-ratio)))
    _, rows = trained(options, base, tmp_path / "a")
    assert rows[0]["loss"] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert rows[0]["nll_loss"] > 0 > rows[0]["rewards/chosen"]


def test_orpo_does_not_break_where_an_answer_is_certain():
    import torch

    logits = torch.full((2, 3, 4), -50.0)
    logits[:, :, 1] = 50.0
    batch = {
        "input_ids": torch.tensor([[1, 1, 1], [1, 2, 2]]),
        "completion_mask": torch.tensor([[0, 1, 1], [0, 1, 1]]),
    }
    logits.requires_grad_()
    loss, found = orpo.losses(logits, batch, 0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    assert found["rewards/accuracies"] == 1
    assert torch.isfinite(logits.grad).all()


def test_the_loss_of_kto_is_that_of_the_paper(base, tiny_model, scorer, tmp_path):
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    options = settings_of("kto", scorer, effective_batch_size=24, schedule="constant", **weights)
    first, _ = trained(replace(options, max_steps=1), base, tmp_path / "a")
    again = opened(tiny_model, tmp_path / "again")
    _, rows = trained(replace(options, max_steps=2), again, tmp_path / "b")
    assert rows[0]["loss"] == pytest.approx((1.5 * 16 + 0.5 * 8) / 24 / 2)
    train = kto.unrelated(dataset_of("unpaired", base.tokenizer).train, options.seed)
    ratios, apart = [], []
    for row in train:
        policy = [said(first.model, row, n) for n in ("completion_ids", "KL_completion_ids")]
        with first.model.disable_adapter():
            was = [said(first.model, row, n) for n in ("completion_ids", "KL_completion_ids")]
        ratios.append(policy[0] - was[0])
        apart.append(policy[1] - was[1])
    zero = max(0.0, sum(apart) / len(apart))
    by_hand = [
        1.5 * (1 - sigmoid(0.1 * (ratio - zero)))
        if good
        else 0.5 * (1 - sigmoid(0.1 * (zero - ratio)))
        for ratio, good in zip(ratios, train["label"], strict=True)
    ]
    assert rows[1]["loss"] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_an_unrelated_answer_is_never_a_rows_own(base):
    train = dataset_of("unpaired", base.tokenizer).train.map(
        lambda row, number: {"completion_ids": [number]}, with_indices=True
    )
    found = kto.unrelated(train, 3)
    assert sorted(found["KL_completion_ids"]) == sorted(train["completion_ids"])
    assert all(row["KL_completion_ids"] != row["completion_ids"] for row in found)
    assert list(found["KL_completion_ids"]) != list(kto.unrelated(train, 4)["KL_completion_ids"])


@pytest.mark.parametrize("loss", kto.LOSSES)
def test_margins_rise_with_kto(loss, base, scorer, tmp_path):
    _, rows = trained(settings_of("kto", scorer, loss=loss, max_steps=30), base, tmp_path / "a")
    found = [row["rewards/margins"] for row in rows if "rewards/margins" in row]
    assert found[-1] > 0.05 > found[0]


def test_kto_never_compares_fewer_rows_because_memory_is_short(base, scorer, tmp_path):
    def narrow(layer: Any, given: Any) -> None:
        if layer.training and len(given[0]) > 2:
            raise MemoryError

    base.model.model.embed_tokens.register_forward_pre_hook(narrow)
    with pytest.raises(StepError, match="with all rows of a step at once"):
        trained(settings_of("kto", scorer, max_steps=1), base, tmp_path / "a")


def test_a_reward_model_learns_to_tell_the_better_answer(base, tiny_model, scorer, tmp_path):
    options = settings_of("reward", scorer, max_steps=1, effective_batch_size=24, learning_rate=0.0)
    model, rows = trained(options, base, tmp_path / "a")
    pairs = dataset_of("preference", base.tokenizer).train
    apart = [score(model, row, "chosen_ids") - score(model, row, "rejected_ids") for row in pairs]
    by_hand = sum(math.log1p(math.exp(-each)) for each in apart) / len(apart)
    assert rows[0]["loss"] == pytest.approx(by_hand, rel=1e-5)
    again = opened(tiny_model, tmp_path / "again")
    model, rows = trained(settings_of("reward", scorer, max_steps=30), again, tmp_path / "b")
    assert rows[-1]["accuracy"] == 1
    assert all(score(model, row, "chosen_ids") > score(model, row, "rejected_ids") for row in pairs)


def score(model: Model, row: dict[str, list[int]], name: str) -> float:
    import torch

    with torch.no_grad():
        return model.model(torch.tensor([row["prompt_ids"] + row[name]])).logits.item()


@pytest.mark.parametrize(
    "how", [{}, {"merge": True}, {"method": "full", "rank": None}], ids=["lora", "merged", "full"]
)
def test_a_reward_model_read_back_scores_the_same(how, base, tiny_model, scorer, tmp_path):
    model, _ = trained(settings_of("reward", scorer, max_steps=3, **how), base, tmp_path / "a")
    (tmp_path / "kept").mkdir()
    adapt.save(model, tmp_path / "kept")
    again = adapt.restore(tmp_path / "kept", {"model": opened(tiny_model, tmp_path / "again")})
    pair = dataset_of("preference", base.tokenizer).train[0]
    assert score(again, pair, "chosen_ids") == score(model, pair, "chosen_ids")


def test_grpo_learns_what_is_rewarded(base, scorer, tmp_path):
    import torch

    with torch.no_grad():  # the random model's output hardly depends on what is trained
        base.model.lm_head.weight.mul_(10)
    options = settings_of("grpo", scorer, max_steps=15, effective_batch_size=16, generations=8)
    _, rows = trained(options, base, tmp_path / "a")
    assert rows[0]["reward"] < 3
    assert rows[-1]["reward"] > 6  # of 8 letters
    assert rows[-1]["rewards/letters/mean"] == rows[-1]["reward"]
    assert rows[-1]["tokens"] > rows[0]["tokens"] > 0


def test_rewards_of_several_functions_add_up_by_weight(base, scorer, tmp_path):
    given = tuple(
        Reward(path=f"{scorer}:{name}", weight=weight)
        for name, weight in (("letters", 1.0), ("shorter", 0.5))
    )
    _, rows = trained(settings_of("grpo", scorer, max_steps=2, rewards=given), base, tmp_path / "a")
    for row in rows:
        parts = row["rewards/letters/mean"] + 0.5 * row["rewards/shorter/mean"]
        assert row["reward"] == pytest.approx(parts, abs=1e-5)


def test_grpo_asks_with_what_comes_before_the_answer(base):
    found = grpo.prompts(dataset_of("sft", base.tokenizer).train, base.tokenizer)[3]
    assert found["prompt"] == "<|im_start|>user\nsay 3<|im_end|>\n<|im_start|>assistant\n"
    assert found["expected"] == "yes"
    assert found["prompt_ids"] == ids(base.tokenizer, found["prompt"])


def test_rows_in_which_nothing_is_asked_are_refused(base):
    from datasets import Dataset as Rows

    text = Rows.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]})
    with pytest.raises(StepError, match="trained from its first token on"):
        grpo.prompts(text, base.tokenizer)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("fails", r"step 1: reward.py:\d+: ZeroDivisionError"),
        ("too_few", "step 1: reward.py:too_few: gave 1 numbers for 4 answers"),
        ("no_number", "step 1: reward.py:no_number: gave 'good' for an answer"),
    ],
)
def test_what_is_wrong_with_a_reward_is_said_with_its_place(name, fact, base, scorer, tmp_path):
    given = (Reward(path=f"{scorer}:{name}"),)
    with pytest.raises(StepError, match=fact):
        trained(settings_of("grpo", scorer, max_steps=1, rewards=given), base, tmp_path / "a")


# --- what a stop costs


def bytes_of(model: Model, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    adapt.save(model, folder)
    return {name: facts["blake3"] for name, facts in files.manifest(folder).items()}


@pytest.mark.parametrize("objective", objectives.TABLE)
@pytest.mark.parametrize("stop_after", [3, 7])
def test_an_objective_goes_on_to_the_same_bytes(
    objective, stop_after, tiny_model, scorer, tmp_path
):
    options = settings_of(
        objective, scorer, max_steps=8, checkpoint_every=100, effective_batch_size=8
    )
    if objective == "grpo":  # 4 steps to an epoch, so that the second stop is in another one
        options = replace(options, beta=0.1, effective_batch_size=24)

    late = objective == "grpo"  # which ends the step that it is in; others leave it

    def train(folder: Path, stop_after: int = 0) -> tuple[Model, list]:
        steps: list[int] = []
        return trained(
            options,
            opened(tiny_model, folder),
            folder,
            progress=lambda done, *_, **__: steps.append(done),
            stop_signal=lambda: "SIGTERM" if 0 < stop_after <= len(steps) + late else None,
        )

    undisturbed, rows = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "broken", stop_after)
    assert Checkpoints(tmp_path / "broken" / "checkpoints", print).newest()[0] == stop_after
    continued, later = train(tmp_path / "broken")
    assert [row["step"] for row in later] == list(range(stop_after + 1, 9))
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[stop_after:]]
    assert bytes_of(continued, tmp_path / "b") == bytes_of(undisturbed, tmp_path / "a")


WHOLE = {"method": "full", "rank": None, "learning_rate": 1e-3}


@pytest.mark.parametrize("objective", ["dpo", "kto", "orpo", "reward", "grpo"])
def test_a_model_that_is_trained_whole_goes_on_after_a_crash_to_the_same_bytes(
    objective, tiny_model, scorer, tmp_path
):
    options = settings_of(objective, scorer, max_steps=6, checkpoint_every=2, **WHOLE)
    if objective == "grpo":
        options = replace(options, effective_batch_size=8)

    def train(folder: Path, crash_at: int = 0) -> Model:
        def measure(row: dict[str, Any]) -> None:
            if "loss" in row and row["step"] == crash_at:
                raise Crash

        dataset = dataset_of(objectives.TABLE[objective].ROWS, opened(tiny_model, folder).tokenizer)
        model = opened(tiny_model, folder)
        try:
            return adapt.run(
                options, {"model": model, "dataset": dataset}, context(folder, metrics=measure)
            )
        finally:
            for thread in threading.enumerate():
                if thread.name == saving.WRITER:
                    thread.join()

    expected = bytes_of(train(tmp_path / "whole"), tmp_path / "a")
    with pytest.raises(Crash):
        train(tmp_path / "broken", crash_at=5)
    assert Checkpoints(tmp_path / "broken" / "checkpoints", print).newest()[0] == 4
    assert bytes_of(train(tmp_path / "broken"), tmp_path / "b") == expected
    untaught = opened(tiny_model, tmp_path / "untaught")
    model = adapt.restore(tmp_path / "b", {"model": untaught}).model
    assert type(model).__name__.endswith(
        "ForSequenceClassification" if objective == "reward" else "ForCausalLM"
    )
    changed = model.model.layers[0].mlp.up_proj.weight
    assert not changed.equal(untaught.model.model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize("objective", ["dpo", "kto", "grpo"])
def test_the_model_is_left_as_it_was_found(objective, base, scorer, tmp_path):
    forward, pad = "forward" in vars(base.model), base.model.config.pad_token_id
    model, _ = trained(settings_of(objective, scorer, max_steps=1), base, tmp_path / "a")
    assert list(model.model.peft_config) == ["default"]
    assert ("forward" in vars(model.model.get_base_model())) == forward
    assert model.model.config.pad_token_id == pad
    assert not (tmp_path / "a" / "work" / "trainer" / "README.md").exists()


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_model_that_is_trained_whole_is_compared_with_figures_made_before(
    objective, base, tiny_model, scorer, tmp_path
):
    options = settings_of(objective, scorer, max_steps=3)
    dataset = dataset_of(objectives.TABLE[objective].ROWS, base.tokenizer)
    made = whole_trainer(options, base, dataset, tmp_path)
    assert made.ref_model is None
    names = made.REFERENCE
    answer = "chosen_ids" if objective == "dpo" else "completion_ids"
    for row in made.train_dataset:
        assert row[names[0]] == pytest.approx(said(base.model, row, answer), rel=1e-4)
    kept = sorted((tmp_path / "reference" / "train").iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    again = whole_trainer(options, opened(tiny_model, tmp_path / "b"), dataset, tmp_path)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert list(again.train_dataset[names[0]]) == list(made.train_dataset[names[0]])


def test_figures_made_before_are_gone_on_with(base, scorer, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    from runner.training.objectives import reference

    monkeypatch.setattr(reference, "ROWS", 8)

    class Stop(TrainerCallback):
        left = 3

        def on_prediction_step(self, *given: Any, **named: Any) -> None:
            self.left -= 1
            if not self.left:
                raise Stopped("SIGTERM")

    options, dataset = (
        settings_of("dpo", scorer, max_steps=1),
        dataset_of("preference", base.tokenizer),
    )
    with pytest.raises(Stopped):
        whole_trainer(options, base, dataset, tmp_path, (Stop(),))
    kept = [path.name for path in (tmp_path / "reference" / "train").iterdir()]
    assert kept == ["000000000-000000008.npy"]


def test_an_adapter_that_goes_on_is_compared_with_what_it_was(base, scorer, tmp_path):
    """Not with the model without it: the margins of the first step are nought again."""
    options = settings_of("dpo", scorer, max_steps=6)
    model, before = trained(options, base, tmp_path / "a")
    assert before[-1]["rewards/margins"] > 0
    options = replace(options, rank=None)
    further, after = trained(options, Model(model.model, base.tokenizer), tmp_path / "b")
    assert after[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert after[-1]["rewards/margins"] > 0
    assert list(further.model.peft_config) == ["default"]


# --- what is refused


def facts(**given: Any) -> list[str]:
    return [fault.fact for fault in objectives.check(Options(**given), {})]


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"beta": 0.1}, "beta means nothing to sft."),
        ({"loss": "ipo"}, "loss means nothing to sft."),
        ({"objective": "orpo", "loss": "ipo"}, "loss means nothing to orpo."),
        ({"objective": "dpo", "generations": 4}, "generations means nothing to dpo."),
        ({"objective": "dpo", "loss": "kto"}, 'dpo has no loss "kto".'),
        (
            {"objective": "dpo", "label_smoothing": 0.1},
            "label_smoothing has no effect on the loss sigmoid.",
        ),
        (
            {"objective": "dpo", "loss": "exo_pair", "label_smoothing": 0.0},
            "exo_pair needs a label_smoothing above 0.",
        ),
        (
            {"objective": "dpo", "dropout": 0.1},
            "dpo compares two models, and dropout would change one of them.",
        ),
        (
            {"objective": "kto", "effective_batch_size": 1},
            "kto compares an answer with those of other rows in its batch.",
        ),
        (
            {"objective": "kto", "micro_batch_size": 2},
            "kto compares the rows that are in memory at once, so these must be the whole batch.",
        ),
        ({"objective": "grpo"}, "grpo needs a function that scores what is written."),
    ],
)
def test_options_that_do_not_fit_an_objective_are_refused(given, fact):
    assert facts(**given) == [fact]


def test_what_is_left_out_is_what_the_objective_takes():
    found = objectives.resolve(Options(objective="dpo", loss="robust"))
    assert (found.beta, found.label_smoothing, found.desirable_weight) == (0.1, 0.1, None)
    assert objectives.resolve(Options()) == Options()
    for name in objectives.TABLE:
        made = objectives.resolve(Options(objective=name))
        assert objectives.check(replace(made, rewards=()), {}) == objectives.check(
            Options(objective=name), {}
        )


def test_functions_for_rewards_are_looked_at_before_anything_runs(scorer):
    given = Reward(path=f"{scorer}:leters")
    found = objectives.check(Options(objective="grpo", rewards=(given,)), {})
    assert [(fault.where, fault.guess) for fault in found] == [
        (("rewards", "0", "path"), 'Did you mean "letters"?')
    ]
    assert facts(objective="grpo", rewards=(Reward(path=f"{scorer}:letters"),)) == []
    assert facts(objective="grpo", generations=3, rewards=(Reward(path=f"{scorer}:letters"),)) == [
        "a batch of 8 rows holds no whole groups of 3 answers."
    ]


def test_a_function_that_changed_changes_the_key(scorer):
    from runner.options import keyed

    given = Options(objective="grpo", rewards=(Reward(path=f"{scorer}:letters"),))
    before = objectives.resolve(given)
    assert str(scorer.parent) not in json.dumps(keyed(before))
    scorer.write_text(SCORER + "# more\n", encoding="utf-8")
    assert keyed(objectives.resolve(given)) != keyed(before)
    with pytest.raises(StepError, match="changed while it was read"):
        rewards.scored(before.rewards[0])


@pytest.mark.parametrize(
    ("objective", "kind", "fact"),
    [
        ("dpo", "sft", "dpo learns from pairs of a better and a worse answer, and the dataset"),
        ("sft", "preference", "sft learns from answers, and the dataset has pairs"),
        ("kto", "preference", "kto learns from answers that are marked good or bad"),
        ("grpo", "unpaired", "grpo learns from answers, and the dataset has answers that are mar"),
    ],
)
def test_rows_of_another_kind_are_refused(objective, kind, fact, base, scorer, tmp_path):
    options = settings_of(objective, scorer, max_steps=1)
    dataset = dataset_of(kind, base.tokenizer)
    with pytest.raises(StepError, match=fact):
        adapt.run(options, {"model": base, "dataset": dataset}, context(tmp_path / "a"))


@pytest.mark.parametrize(
    ("shape", "objective", "fact"),
    [
        ("preference", "sft", "sft learns from answers, and the dataset has pairs of a better"),
        ("messages", "kto", "kto learns from answers that are marked good or bad, and the dataset"),
        ("unpaired", "dpo", "dpo learns from pairs of a better and a worse answer, and the data"),
        ("preference", "orpo", None),
        ("unpaired", "kto", None),
        ("auto", "dpo", None),
        ("alpaca", "sft", None),
    ],
)
def test_rows_of_another_kind_are_refused_before_any_work_where_the_recipe_tells(
    shape, objective, fact
):
    made: Any = SimpleNamespace(options=SimpleNamespace(shape=shape))
    found = objectives.check(Options(objective=objective), {"dataset": (made,)})
    assert [fault.fact.startswith(fact or "?") for fault in found] == ([True] if fact else [])


def test_nothing_but_save_takes_a_reward_model():
    taught: Any = SimpleNamespace(
        name="taught", stage_name="adapt", options=Options(objective="reward")
    )
    rows: Any = SimpleNamespace(name="process", stage_name="process", options=None)
    fact = "taught gives a reward model, which scores texts and writes none."
    for stage in (adapt, evaluate, generate, quantize):
        found = stage.check(stage.Options(), {"model": (taught,), "dataset": (rows,)})
        assert [fault.fact for fault in found] == [fact]
    taught.options = Options(objective="dpo")
    assert generate.check(generate.Options(), {"model": (taught,), "dataset": (rows,)}) == []


def test_a_reward_model_is_saved_as_one_that_opens(base, scorer, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model, _ = trained(settings_of("reward", scorer, max_steps=3), base, tmp_path / "a")
    pair = dataset_of("preference", base.tokenizer).train[0]
    options = save.Options(to=tmp_path / "saved")
    save.run(options, {"model": model}, context(tmp_path / "b"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    found = Model(again.eval(), base.tokenizer)
    assert score(found, pair, "chosen_ids") == pytest.approx(
        score(model, pair, "chosen_ids"), abs=1e-4
    )


def test_more_prompts_than_there_are_rows_are_refused(base, scorer, tmp_path):
    options = settings_of("grpo", scorer, max_steps=1, effective_batch_size=128)
    with pytest.raises(StepError, match="a step takes 32 prompts, and the dataset has 24 rows"):
        trained(options, base, tmp_path / "a")


def test_an_adapter_on_the_output_layer_is_refused_where_it_would_not_learn(base, scorer, tmp_path):
    options = settings_of("dpo", scorer, max_steps=1, target_modules=("lm_head",))
    with pytest.raises(StepError, match="lm_head"):
        trained(options, base, tmp_path / "a")
