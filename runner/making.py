"""How a result gets into the store: under a lease, out of a draft, with a record of what it is."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

from runner import hardware, upkeep
from runner.events import Noted, Tell
from runner.files import digest_json
from runner.plan import Parts, Planned, versions
from runner.secrets import masked
from runner.store import Entry, Store


@dataclass(frozen=True)
class Making:
    """What making a step's result and making a part of one have in common."""

    store: Store
    recipe: str
    tell: Tell
    stop_here: Callable[[], None]

    def lease(self, key: str, step: str, about: str = "") -> AbstractContextManager[None]:
        """Be the one who makes this key; a wait for another is said as the step's."""
        return self.store.lease(
            key, lambda text: self.tell(Noted(step, about + text)), self.stop_here
        )

    def record(
        self, step: str, parts: Parts, begun: float, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What an entry says of itself; `begun` is when its making did, by the monotonic clock."""
        return {
            "recipe": self.recipe,
            "step": step,
            "parts": parts,
            "facts": masked(facts),
            "seconds": round(time.monotonic() - begun, 3),
            "peak_memory": hardware.peak_memory(),
            "versions": versions(),
        }

    def part(
        self,
        planned: Planned,
        used: ExitStack,
        name: str,
        options: Mapping[str, Any],
        roles: Collection[str],
        make: Callable[[Path], None],
    ) -> Entry:
        """Find or make a part of a step's work; it stays for as long as `used` is open."""
        step = f"{planned.step.name}.{name}"
        inputs = {role: planned.parts["inputs"][role] for role in roles}
        parts = {**planned.parts, "part": name, "options": dict(options), "inputs": inputs}
        key = digest_json(parts)[:32]
        used.enter_context(upkeep.using(self.store, [key]))
        with self.lease(key, planned.step.name, f"{name}: "):
            entry = self.store.entry(key)
            if entry is None or entry.damage():
                entry = self._make_part(key, step, parts, make, entry)
        self.store.remember(self.recipe, step, key, parts)
        return entry

    def _make_part(
        self,
        key: str,
        step: str,
        parts: Parts,
        make: Callable[[Path], None],
        damaged: Entry | None,
    ) -> Entry:
        draft, begun = self.store.draft(key), time.monotonic()
        make(draft.work)
        link = partial(copytree, draft.work, copy_function=os.link, dirs_exist_ok=True)
        replaces = str(damaged.record["id"]) if damaged else None
        return self.store.commit(draft, link, self.record(step, parts, begun, {}), replaces)
