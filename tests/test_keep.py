"""`store.keep`: large results go once nothing needs them, and come back when asked for."""

import pytest
from fakes import (
    WithPart,
    borrower,
    carry_out,
    consumer,
    gatherer,
    recipe,
    source,
    step,
    words,
)

from runner import upkeep
from runner.events import Dropped, Finished
from runner.plan import Verdict, plan
from runner.recipe import Recipe
from runner.stage import Need
from runner.store import Entry, Store
from runner.upkeep import pin


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch):
    monkeypatch.setattr(upkeep, "LARGE", 0)


def chain(keep: object, last: int = 8, name: str = "trial") -> Recipe:
    """a -> b -> c -> d, and e reads b and d."""
    return recipe(
        step("a", source("a")),
        step("b", consumer("b"), {"text": "a"}),
        step("c", borrower("c"), {"text": "b"}),
        step("d", borrower("d"), {"text": "c"}),
        step("e", gatherer("e"), {"texts": ("b", "d")}, rank=last),
        keep=keep,
        name=name,
    )


def kept(store: Store, what: Recipe) -> set[str]:
    return {p.step.name for p in plan(what, store).steps if store.entry(p.key)}


def test_everything_is_kept_unless_asked_otherwise(store):
    carry_out(chain("all"), store)
    assert kept(store, chain("all")) == set("abcde")


def test_results_keeps_what_no_step_takes_in(store):
    right = carry_out(chain("all"), Store(store.root / "other")).digests
    ran = carry_out(chain("results"), store)
    assert kept(store, chain("results")) == {"e"}
    assert ran.digests == right
    assert list(store.drafts.iterdir()) == []


def test_steps_that_are_named_are_kept_too(store):
    carry_out(chain(("b",)), store)
    assert kept(store, chain(("b",))) == {"b", "e"}


def test_files_go_as_soon_as_nothing_to_come_needs_them(store):
    said = carry_out(chain("results"), store).events
    order = [
        f"-{event.step}" if isinstance(event, Dropped) else event.outcome.planned.step.name
        for event in said
        if isinstance(event, Dropped | Finished)
    ]
    assert order == ["a", "b", "-a", "c", "d", "-c", "e", "-b", "-d"]


def test_what_was_dropped_is_known_and_not_made_again(store):
    carry_out(chain("results"), store)
    again = carry_out(chain("results"), store)
    assert set(again.verdicts.values()) == {Verdict.REUSE}
    assert "its files were dropped (store.keep)" in again.plan.step("a").reason
    assert not [event for event in again.events if isinstance(event, Dropped)]


def test_a_plan_says_what_dropped_files_will_be_made_again(store):
    carry_out(chain("results"), store)
    planned = plan(chain("results", last=9), store)
    assert [str(p.verdict) for p in planned.steps] == ["run"] * 5
    assert "are needed again" in planned.step("d").reason
    ran = carry_out(chain("results", last=9), store)
    assert ran.verdicts == {p.step.name: p.verdict for p in planned.steps}
    assert words(store, ran.plan, "e")[-1] == "e:9:1.0"


def test_only_what_is_needed_comes_back(store):
    carry_out(chain(("d",)), store)
    changed = recipe(*chain("all").steps, step("f", borrower("f"), {"text": "d"}), keep=("d",))
    ran = carry_out(changed, store)
    assert [name for name, verdict in ran.verdicts.items() if verdict is Verdict.RUN] == ["f"]


def test_a_pinned_result_stays(store):
    pin(store, plan(chain("results"), store).step("a").key)
    carry_out(chain("results"), store)
    assert kept(store, chain("results")) == {"a", "e"}


def test_what_another_recipe_has_used_stays(store):
    carry_out(recipe(chain("all").steps[0], name="other"), store)
    carry_out(chain("results"), store)
    assert "a" in kept(store, chain("results"))


def test_a_result_that_is_made_again_is_no_longer_known_as_dropped(store):
    carry_out(chain("results"), store)
    key = plan(chain("all"), store).step("a").key
    assert store.remains(key)
    carry_out(chain("all"), store, fresh={"a"})
    assert store.remains(key) is None
    assert store.entry(key)


def test_small_results_stay(store, monkeypatch):
    monkeypatch.setattr(upkeep, "LARGE", 1 << 20)
    carry_out(chain("results"), store)
    assert kept(store, chain("results")) == set("abcde")


def test_a_collection_takes_what_is_known_of_dropped_results_when_nobody_asks_for_it(store):
    carry_out(chain("results"), store)
    found = upkeep.garbage(store, 0, drafts=False)
    assert len(found.remains) == 4
    upkeep.delete(store, found)
    assert not any(store.dropped.iterdir())


# --- parts of a step's work


def parted(
    use: WithPart, keep: object = "results", rank: int = 8, last: int = 8, twice: bool = False
) -> Recipe:
    """first -> use (or use and more, which share their part) -> last."""
    more = [step("more", use, {"text": "first"}, rank=7)] if twice else []
    names = ("use", *(each.name for each in more))
    return recipe(
        step("first", source("first")),
        step("use", use, {"text": "first"}, rank=rank),
        *more,
        step("last", gatherer("last"), {"texts": names}, rank=last),
        keep=keep,
    )


@pytest.fixture
def use() -> WithPart:
    return WithPart("use", {"text": Need(kind="text")})


def part_of(store: Store, what: Recipe, name: str = "use") -> tuple[str, Entry | None]:
    """The key of the one part of a step that is done, and the part, if its files are there."""
    key = plan(what, store).step(name).key
    (found,) = (store.entry(key) or store.remains(key)).record["part_keys"]
    return found, store.entry(found)


def test_a_part_goes_with_the_files_of_its_step_and_stays_known(store, use):
    ran = carry_out(parted(use), store)
    key, part = part_of(store, parted(use))
    assert part is None
    assert store.remains(key).record["step"] == "use.read"
    sizes = {event.step: event.size for event in ran.events if isinstance(event, Dropped)}
    files = (store.remains(each) for each in (key, ran.plan.step("use").key))
    assert sizes["use"] == sum(map(upkeep.size_of, files))
    again = carry_out(parted(use), store)
    assert set(again.verdicts.values()) == {Verdict.REUSE}
    assert use.count["part"] == 1
    assert not [event for event in again.events if isinstance(event, Dropped)]


def test_a_part_of_a_step_that_is_kept_stays(store, use):
    carry_out(parted(use, keep=("use",)), store)
    assert part_of(store, parted(use))[1]
    carry_out(parted(use, keep=("use",), rank=9), store)
    assert use.count["part"] == 1


def test_a_dropped_part_is_made_again_where_its_step_is(store, use):
    right = carry_out(parted(use, last=9), Store(store.root / "other")).digests
    carry_out(parted(use), store)
    assert carry_out(parted(use, last=9), store).digests == right
    assert use.count["part"] == 3
    assert part_of(store, parted(use))[1] is None


def test_a_part_that_a_step_to_come_shares_is_made_once(store, use):
    carry_out(parted(use, twice=True), store)
    assert use.count["part"] == 1
    assert part_of(store, parted(use, twice=True), "more")[1] is None


def test_a_part_that_a_kept_step_shares_stays(store, use):
    carry_out(parted(use, keep=("use",), twice=True), store)
    assert kept(store, parted(use, keep=("use",), twice=True)) == {"use", "last"}
    assert part_of(store, parted(use, twice=True))[1]


def test_a_part_stays_where_the_files_of_its_step_do(store, use):
    pin(store, plan(parted(use), store).step("use").key)
    carry_out(parted(use), store)
    assert part_of(store, parted(use))[1]


def test_a_pinned_part_stays(store, use):
    carry_out(parted(use, keep="all"), store)
    pin(store, part_of(store, parted(use))[0])
    carry_out(parted(use), store)
    assert kept(store, parted(use)) == {"last"}
    assert part_of(store, parted(use))[1]
