"""What answers are worth: each measure, how sure it is, where it is found and what it must be."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStage, Options, recipe, step
from hypothesis import given
from hypothesis import strategies as st
from test_stages import context, kept

from runner import cli, products, running
from runner.errors import StepError
from runner.options import build, option
from runner.scoring import gates, texts
from runner.scoring.addresses import addresses
from runner.scoring.intervals import Bootstrap, Measured
from runner.stages import evaluate
from runner.store import Store

WORDS = st.lists(st.sampled_from("the cat, Sat on a mat. an 7 ...".split()), max_size=6).map(
    " ".join
)


def rows(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": str(n), "prompt": f"p{n}", "answer": answer, "expected": expected}
        for n, (answer, expected) in enumerate(pairs)
    ]


def options(**given: Any) -> evaluate.Options:
    made, faults = build(evaluate.Options, {"metrics": [], **given})
    assert not faults, faults
    return evaluate.resolve(made, {})


def scores(tmp_path: Path, texts: dict[str, Any], **given: Any) -> dict[str, Any]:
    return evaluate.run(options(**given), {"texts": texts}, context(tmp_path))


def facts(options: evaluate.Options, **inputs: Any) -> list[str]:
    return [fault.fact for fault in evaluate.check(options, inputs)]


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    path = tmp_path / "judge.py"
    path.write_text(
        "def length(prompts, answers, expected):\n    return [len(each) for each in answers]\n"
        "def few(prompts, answers, expected):\n    return [1.0]\n"
        "def nothing(prompts, answers, expected):\n    return [None for each in answers]\n"
        "def breaks(prompts, answers, expected):\n    return 1 / 0\n"
    )
    return path


# --- measures


def test_answers_are_compared_to_the_letter_by_containment_and_by_words(tmp_path):
    given = rows(("7", "7"), ("it is 7", "7"), ("7 ", "7"), ("eight", "7"))
    found = scores(tmp_path, {"after": given}, metrics=["exact_match", "contains", "f1"])
    assert found["exact_match"] == {"after": 0.25}
    assert found["contains"] == {"after": 0.75}
    assert found["f1"] == {"after": round((1 + 0.5 + 1 + 0) / 4, 4)}
    assert [row["exact_match"] for row in found["rows"]] == [1, 0, 0, 0]
    assert [row["id"] for row in found["rows"]] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "cat cat", 2 / 3),
        ("a b c d", "c d e f", 0.5714285714285714),  # the article a does not count
        ("", "", 1.0),
        ("the", "", 1.0),
        ("cat", "", 0.0),
        ("dog", "cat", 0.0),
    ],
)
def test_f1_is_that_of_squad(answer, expected, f1):
    assert texts.f1(answer, expected) == pytest.approx(f1)


@given(answer=WORDS, expected=WORDS)
def test_f1_is_the_same_both_ways_and_between_0_and_1(answer, expected):
    found = texts.f1(answer, expected)
    assert 0 <= found <= 1
    assert found == texts.f1(expected, answer)
    assert texts.f1(answer, answer) == 1


def test_a_pattern_is_found_or_what_its_group_holds_is_compared(tmp_path):
    given = rows(
        ("so #### 7", "7"), ("#### 8 no #### 7", "7"), ("#### 7 no #### 8", "7"), ("7", "7")
    )
    found = scores(tmp_path, {"a": given}, metrics=["regex"], pattern=r"#### (\d+)")
    assert [row["regex"] for row in found["rows"]] == [1, 1, 0, 0]
    without = [{**row, "expected": None} for row in given]
    found = scores(tmp_path, {"a": without}, metrics=["regex"], pattern="####")
    assert found["regex"] == {"a": 0.75}


def test_an_answer_that_failed_counts_as_wrong_and_a_missing_expectation_is_refused(tmp_path):
    given = rows((None, "7"), ("7", "7"))
    assert scores(tmp_path, {"a": given}, metrics=["contains"])["contains"] == {"a": 0.5}
    with pytest.raises(StepError, match="1 of 2 rows of a have none"):
        scores(tmp_path, {"a": rows(("7", "7"), ("7", None))}, metrics=["f1"])


def test_rouge_and_bleu_are_those_of_their_libraries(tmp_path):
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = [
        ("the cat sat on the mat today", "the cat sat on a mat today"),
        ("nothing alike", "a dog ran far away from here"),
        ("a dog ran far away", "a dog ran far away from here"),
    ]
    found = scores(tmp_path, {"a": rows(*pairs)}, metrics=["rouge", "bleu"])
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    mean = sum(scorer.score(right, given)["rougeL"].fmeasure for given, right in pairs) / 3
    assert found["rougeL"]["a"] == pytest.approx(mean, abs=1e-4)
    bleu = sacrebleu.corpus_bleu([a for a, _ in pairs], [[b for _, b in pairs]]).score
    assert found["bleu"]["a"] == pytest.approx(bleu, abs=1e-4)
    low, high = found["intervals"]["bleu"]["a"]
    assert 0 <= low < bleu < high <= 100
    assert found["rows"][0]["bleu"] > found["rows"][1]["bleu"]


def test_a_judge_is_the_users_own_function_and_its_source_is_in_the_key(judge, tmp_path):
    given = {"a": rows(("12", "7"), ("1234", None))}
    made = options(judges=[{"path": f"{judge}:length"}])
    found = evaluate.run(made, {"texts": given}, context(tmp_path))
    assert found["length"] == {"a": 3}
    judge.write_text(judge.read_text().replace("len(each)", "2 * len(each)"))
    assert evaluate.resolve(options(judges=[{"path": f"{judge}:length"}]), {}) != made
    with pytest.raises(StepError, match="changed while it was read"):
        evaluate.run(made, {"texts": given}, context(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", r"judge.py:few gave 1 numbers for 2 answers of a"),
        ("nothing", r"judge.py:nothing gave None for an answer of a, which is no number"),
        ("breaks", r"a: judge.py:8: ZeroDivisionError"),
    ],
)
def test_a_judge_must_give_a_number_for_each_answer(name, message, judge, tmp_path):
    with pytest.raises(StepError, match=message):
        scores(tmp_path, {"a": rows(("1", "1"), ("2", "2"))}, judges=[{"path": f"{judge}:{name}"}])


def test_scores_are_the_same_from_the_store(tmp_path):
    made = scores(tmp_path, {"a": rows(("7", "7"), ("8", "7"))}, metrics=["f1"])
    assert kept(evaluate, made, tmp_path / "scores", {}) == made
    assert json.loads((tmp_path / "scores" / "rows.jsonl").read_text().splitlines()[0])["f1"] == 1


# --- lm-eval


def task(folder: Path, **changed: Any) -> Path:
    lines = [json.dumps({"q": f"say {n}", "choices": ["yes", "no"], "a": n % 2}) for n in range(8)]
    (folder / "rows8.jsonl").write_text("\n".join(lines) + "\n")
    config = {
        "task": "yes_no",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "rows8.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **changed,
    }
    path = folder / "task.yaml"
    path.write_text(json.dumps(config))
    return path


def test_a_task_of_lm_eval_is_measured_on_local_data(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(tmp_path)
    model = products.open_model(tiny_model, dtype="float32", attn_implementation="sdpa")
    made = options(tasks=[{"path": str(task(tmp_path))}])
    found = evaluate.run(made, {"model": model}, context(tmp_path))
    likelier = [_likelier(model, f"say {n}", ("yes", "no")) for n in range(8)]
    assert [row["acc"] for row in found["rows"]] == [
        each == n % 2 for n, each in enumerate(likelier)
    ]
    assert found["acc"]["yes_no"] == sum(row["acc"] for row in found["rows"]) / 8
    assert len(found["intervals"]["acc"]["yes_no"]) == 2


def _likelier(model: products.Model, text: str, choices: tuple[str, ...]) -> int:
    import torch

    def total(choice: str) -> float:
        asked, whole = (model.tokenizer(each)["input_ids"] for each in (text, f"{text} {choice}"))
        with torch.inference_mode():
            found = model.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(found[at - 1, whole[at]].item() for at in range(len(asked), len(whole)))

    return max(range(len(choices)), key=lambda index: total(choices[index]))


def test_a_tasks_templates_reach_nothing_but_the_row(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    import jinja2

    monkeypatch.chdir(tmp_path)
    model = products.open_model(tiny_model, dtype="float32", attn_implementation="sdpa")
    path = task(tmp_path, doc_to_text="{{ q.__class__.__mro__ }}")
    with pytest.raises((StepError, jinja2.exceptions.SecurityError), match=r"unsafe|access"):
        evaluate.run(options(tasks=[{"path": str(path)}]), {"model": model}, context(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: x\nprocess_docs: !function mine.docs\n", "is no task file that can be read"),
        ("task: x\ninclude: other.yaml\n", "includes another file"),
        ("task: x\ndataset_path: someone/data\n", "names no data files"),
        ("task: x\ndataset_kwargs: {data_files: {test: gone.jsonl}}\n", "does not exist"),
        ("- 1\n", "must be a mapping"),
    ],
)
def test_a_task_file_runs_no_code_and_fetches_nothing(text, message, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    made, _ = build(evaluate.Options, {"tasks": [{"path": str(tmp_path / "t.yaml")}]})
    found = facts(made, model=(step("load", FakeStage("load")),))
    assert any(message in fact for fact in found), found


def test_changed_data_of_a_task_changes_its_key(tmp_path):
    path = task(tmp_path)
    before = options(tasks=[{"path": str(path)}])
    (tmp_path / "rows8.jsonl").write_text("{}\n")
    assert options(tasks=[{"path": str(path)}]) != before


# --- how sure they are


def test_an_interval_holds_the_true_share_about_as_often_as_it_says():
    import numpy as np

    draw = np.random.default_rng(7)
    inside = 0
    for seed in range(200):
        values = (draw.random(150) < 0.3).astype(float).tolist()
        low, high = Bootstrap(400, 0.9, seed).interval(Measured.mean_of("m", values), range(150))
        inside += low <= 0.3 <= high
    assert 0.83 < inside / 200 < 0.97


def test_intervals_are_repeatable_and_narrow_with_more_rows():
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 1000

    def width(values: list[float], seed: int = 0) -> float:
        at = Bootstrap(1000, 0.95, seed).interval(Measured.mean_of("m", values), range(len(values)))
        return at[1] - at[0]

    assert width(few) == width(few)
    assert width(many) == pytest.approx(width(few) / 10, rel=0.2)


def test_answers_to_one_prompt_are_drawn_together():
    """Ten answers alike to each of ten prompts say no more than one answer to each."""
    values = [float(n % 2) for n in range(10)]
    tenfold = [value for value in values for _ in range(10)]
    prompts = [n for n in range(10) for _ in range(10)]
    bootstrap = Bootstrap(1000, 0.95, 0)
    alone = bootstrap.interval(Measured.mean_of("m", values), range(10))
    assert bootstrap.interval(Measured.mean_of("m", tenfold), prompts) == pytest.approx(alone)


def test_an_interval_of_many_rows_is_made_in_pieces(monkeypatch):
    from runner.scoring import intervals

    measured = Measured.mean_of("m", [float(n % 3) for n in range(50)])
    whole = Bootstrap(100, 0.95, 3).interval(measured, range(50))
    monkeypatch.setattr(intervals, "CELLS", 120)
    assert Bootstrap(100, 0.95, 3).interval(measured, range(50)) == whole


def test_perplexity_is_the_figure_of_all_tokens_and_not_the_mean_of_rows():
    from runner.scoring.intervals import perplexity

    measured = Measured("perplexity", [2, 0.5], [(20, 10), (1, 2)], perplexity)
    assert measured.value == pytest.approx(math.exp(21 / 12))


# --- where they are found, and what they must be


def test_a_figure_has_one_address_and_a_short_one_where_that_is_clear():
    found = addresses(
        "evaluate",
        {
            "exact_match": {"before": 0.1, "after": 0.9},
            "f1": {"after": 0.5},
            "perplexity": {"reference": 2.0, "model": 3.0},
            "intervals": {"f1": {"after": [0.4, 0.6]}},
            "samples": [1],
            "seconds": 3,
            "whole": True,
        },
    )
    assert found == {
        "evaluate.before.exact_match": 0.1,
        "evaluate.after.exact_match": 0.9,
        "evaluate.after.f1": 0.5,
        "evaluate.f1": 0.5,
        "evaluate.reference.perplexity": 2.0,
        "evaluate.model.perplexity": 3.0,
        "evaluate.perplexity": 3.0,
        "evaluate.seconds": 3,
    }


@pytest.mark.parametrize(
    ("value", "condition", "met"),
    [
        (0.8, ">= 0.8", True),
        (0.79, ">=0.8", False),
        (12, "< 1.2e1", False),
        (11, "<12", True),
        (1, "== 1", True),
        (-1, "> -2", True),
        (math.nan, ">= 0", False),
        (math.nan, "< 0", False),
    ],
)
def test_a_condition_compares_a_figure_with_a_number(value, condition, met):
    assert gates.holds(value, condition) is met


def test_what_is_wrong_with_measures_is_said_before_any_work(judge):
    text = (step("before", FakeStage("text")), step("after", FakeStage("text")))
    made, _ = build(
        evaluate.Options,
        {
            "metrics": ["exact_match", "regex"],
            "judges": [{"path": f"{judge}:lengths"}],
            "require": {"exact_match": ">= 0.8", "after.exact_match": "0.8", "f1": "> 0"},
        },
    )
    found = facts(made, texts=text)
    assert found == [
        "regex needs a pattern.",
        f'{judge} has no function "lengths".',
        'require: nothing here measures "exact_match".',
        '"0.8" is no condition.',
        'require: nothing here measures "f1".',
    ]
    assert facts(options(pattern="x"), texts=text) == [
        "pattern means nothing without regex among the metrics."
    ]
    assert "no regular expression" in facts(options(metrics=["regex"], pattern="("), texts=text)[0]
    assert "scores answers" in facts(options(metrics=["f1"]), model=text)[0]


def test_a_missing_library_is_named_with_its_line(monkeypatch):
    monkeypatch.setattr("runner.extras.find_spec", lambda name: None)
    text = (step("a", FakeStage("text")),)
    line = 'python -m pip install "recipe-runner[scores]"'
    assert line in facts(options(metrics=["rouge"]), texts=text)[0]


@dataclass(frozen=True, kw_only=True)
class Gated(Options):
    """The options of a stage that may require something of its figures."""

    require: dict[str, str] = option({}, "What figures must be", keyed=False)


def gated(**given: Any) -> Any:
    stage = FakeStage("scorer", Options=Gated)
    return recipe(step("scorer", stage, **given), step("later", FakeStage("later")))


def test_an_unmet_requirement_ends_the_run_after_all_is_kept_and_again(tmp_path):
    from runner.plan import Verdict, plan

    store = Store(tmp_path / "store")

    def outcome(**require: str) -> tuple[list[Verdict], str]:
        planned = plan(gated(require=require), store)
        try:
            done = running.carry_out(planned, store, lambda event: None, tmp_path / "runs")
        except gates.Unmet as error:
            return [each.verdict for each in error.outcomes], str(error)
        return [each.verdict for each in done], ""

    text = "scorer: words is 1, and require says > 1. Everything is kept."
    assert outcome(words="> 1") == ([Verdict.RUN, Verdict.RUN], text)
    assert outcome(words="> 1") == ([Verdict.REUSE, Verdict.REUSE], text)
    assert outcome(words=">= 1") == ([Verdict.REUSE, Verdict.REUSE], "")
    assert "lines was not measured" in outcome(lines=">= 1")[1]
    newest = [
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/*/record.json"))
    ]
    assert [each["ending"].split(":")[0] for each in newest] == [
        "ended by Unmet",
        "ended by Unmet",
        "finished",
        "ended by Unmet",
    ]


def test_a_recipe_with_a_requirement_that_is_not_met_exits_with_1(
    tmp_path, tiny_model, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"say {n}"},
                        {"role": "assistant", "content": "x"},
                    ]
                }
            )
            + "\n"
            for n in range(6)
        )
    )
    (tmp_path / "r.yaml").write_text(
        json.dumps(
            {
                "steps": "fetch process load evaluate".split(),
                "fetch": {"model": {"path": str(tiny_model)}, "data": {"path": "rows.jsonl"}},
                "process": {"held_out": 3},
                "evaluate": {"require": {"perplexity": "< 2"}},
            }
        )
    )
    assert cli.main(["run", "r.yaml"]) == 1
    out, error = capfd.readouterr()
    assert "perplexity" in out
    assert "evaluate: perplexity is " in error
    assert "and require says < 2. Everything is kept." in error
    assert cli.main(["run", "r.yaml"]) == 1
    out, error = capfd.readouterr()
    assert "0 steps run, 5 reused" in out
    assert "require says < 2" in error
    assert cli.main(["run", "r.yaml", "evaluate.require.perplexity='> 2'"]) == 0
    assert "0 steps run, 5 reused" in capfd.readouterr()[0]
