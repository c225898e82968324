"""What a step is likely to take, by the records of earlier ones like it; nothing where none is."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from runner.plan import Parts, Plan, Planned, Verdict
from runner.store import Store

MOST = 2.0
"""How many times a number among the options may be what it was, or the other way round."""
MEANINGLESS = ("seed",)
"""Options that say nothing of how much work there is."""


@dataclass(frozen=True)
class Forecast:
    """What the record of the key `like` says: seconds, and the peak of its process in bytes."""

    seconds: float
    memory: int | None
    like: str


def forecasts(plan: Plan, store: Store) -> dict[str, Forecast]:
    """Of each step that would run from its beginning and has run here before, or one like it.

    Like it is the same step of the recipe in the same version of its stage, on this machine, with
    inputs that are alike in turn, whose options differ by numbers alone, and by a factor of two at
    the most.
    """
    records = _Records(plan, store)
    found = {p.step.name: records.of(p) for p in plan.work if p.verdict is Verdict.RUN}
    return {name: forecast for name, forecast in found.items() if forecast}


class _Records:
    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.host = socket.gethostname()
        self.rows = cache(lambda name: store.recent(plan.recipe.name, name))

    def of(self, planned: Planned) -> Forecast | None:
        """By the step's own earlier record, else by the newest of those like it."""
        name = planned.step.name
        keys = [planned.key] + [
            row["key"] for row in self.rows(name) if self._alike(planned, row["parts"])
        ]
        return next(filter(None, map(self._record, keys)), None)

    def _record(self, key: str) -> Forecast | None:
        entry = self.store.entry(key) or self.store.remains(key)
        if entry is None or entry.record.get("host") != self.host:
            return None
        record = entry.record
        return Forecast(float(record["seconds"]), record.get("peak_memory"), key)

    def _alike(self, planned: Planned, was: Parts) -> bool:
        now = planned.parts
        same = all(now.get(name) == was.get(name) for name in ("schema", "stage", "version"))
        return (
            same
            and _near(now.get("options"), was.get("options"))
            and now["inputs"].keys() == was.get("inputs", {}).keys()
            and all(self._input(planned, role, key) for role, key in was["inputs"].items())
        )

    def _input(self, planned: Planned, role: str, was: Any) -> bool:
        """Whether the steps that fill a role are like those that filled it then."""
        names = planned.step.inputs[role]
        earlier = was if isinstance(was, list) else [[names[0], was]]
        return [name for name, _ in earlier] == [*names] and all(
            self._giver(self.plan.step(name), key) for name, key in earlier
        )

    def _giver(self, planned: Planned, key: str) -> bool:
        if planned.key == key:
            return True
        rows: Sequence[Mapping[str, Any]] = self.rows(planned.step.name)
        return any(row["key"] == key and self._alike(planned, row["parts"]) for row in rows)


def _near(now: Any, was: Any) -> bool:
    """Whether options are the same but for numbers that are not far from each other."""
    if isinstance(now, Mapping) and isinstance(was, Mapping):
        return now.keys() == was.keys() and all(
            name in MEANINGLESS or _near(now[name], was[name]) for name in now
        )
    if _is_number(now) and _is_number(was) and now and was:
        return bool(1 / MOST <= now / was <= MOST)
    return type(now) is type(was) and bool(now == was)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
