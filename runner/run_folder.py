"""The folder that a run leaves under runs/, written while the run goes on."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from runner import files, hardware, products, provenance
from runner import lock as locks
from runner.errors import RunnerError, writing
from runner.events import Dropped, Event, Finished, Measured, Noted, Outcome, Started
from runner.plan import Plan, Verdict
from runner.secrets import mask, masked


class RunFolder:
    """runs/<recipe>/<time>/: the resolved recipe, a record of every step, figures, a log, links."""

    def __init__(self, planned: Plan, root: Path, words: Sequence[str]) -> None:
        self.plan, self.words, self.begun = planned, words, time.time()
        self.folder = _new_folder(root / planned.recipe.name)
        self.steps: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        text = yaml.safe_dump(dict(planned.recipe.plain), sort_keys=False, allow_unicode=True)
        with writing(self.folder):
            (self.folder / "recipe.yaml").write_text(text, encoding="utf-8")
            path = self.folder / "log.txt"
            self.log = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def hear(self, event: Event) -> None:
        """Keep what an event says. Progress is for the screen only."""
        match event:
            case Started(planned):
                self.running.append(planned.step.name)
                self._write("unfinished")  # for those who watch
                self._say(f"{planned.step.name}: {planned.verdict}: {planned.reason}")
            case Noted(step, text):
                self._say(f"{step}: {text}" if step else text)
            case Measured(step, row):
                with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(masked({"of": step, **row})) + "\n")
            case Finished(outcome):
                self._keep(outcome)
            case Dropped(step, size):
                (self.folder / "products" / step).unlink(missing_ok=True)
                self._say(f"{step}: {files.human_bytes(size)} dropped")

    def _keep(self, outcome: Outcome) -> None:
        """The record of a step that is done, and a link to its product."""
        name, record = outcome.planned.step.name, outcome.entry.record
        self.running = [each for each in self.running if each != name]
        self.steps[name] = {
            "key": outcome.planned.key,
            "verdict": str(outcome.verdict),
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 3),
            "peak_memory": hardware.peak_memory(),
            "made_in_seconds": record["seconds"],
            **{part: record[part] for part in ("digest", "made", "facts", "versions")},
        }
        links = self.folder / "products"
        links.mkdir(exist_ok=True)
        if not outcome.planned.dropped:
            with suppress(FileExistsError):
                (links / name).symlink_to(outcome.entry.product)
        if outcome.verdict is not Verdict.REUSE:  # so that a kill leaves what was done so far
            self._write("unfinished")
        elif outcome.entry.metrics.exists():
            products.place(outcome.entry.metrics, self.folder / "metrics" / f"{name}.jsonl")
        self._say(f"{name}: {outcome.verdict} ({outcome.seconds:.2f} s): {outcome.reason}")

    def close(self, ending: str) -> None:
        """Write how the run ended; the last thing that is written."""
        self._write(ending)
        self._say(f"run: {ending}")
        self.log.close()
        self._clean_log()

    def _clean_log(self) -> None:
        """Hide secrets in what libraries have printed into the log."""
        path = self.folder / "log.txt"
        text = path.read_text(encoding="utf-8", errors="replace")
        if mask(text) != text:
            path.write_text(mask(text), encoding="utf-8")

    def _write(self, ending: str) -> None:
        record = {
            "recipe": self.plan.recipe.name,
            "ending": ending,
            **provenance.of_run(self.words, self.begun),
            "peak_memory": hardware.peak_memory(),
            "plan": provenance.of_plan(self.plan),
            "running": self.running,
            "sources": locks.rows(self.plan.recipe),
            "steps": self.steps,
        }
        with writing(self.folder):
            files.write_json(self.folder / "record.json", masked(record))

    def _say(self, text: str) -> None:
        self.log.write(f"{time.strftime('%H:%M:%S')} {mask(text)}\n")


def _new_folder(parent: Path) -> Path:
    """A folder named by the time, that no other run has."""
    stamp, count = time.strftime("%Y-%m-%dT%H-%M-%S"), 1
    while True:
        folder = parent / (stamp if count == 1 else f"{stamp}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError as error:
            if parent.is_file():
                raise RunnerError(f"{parent} is a file; runs are kept in a folder.") from error
            count += 1
        except OSError as error:
            raise RunnerError(f"{parent}: cannot keep the run: {error.strerror}.") from error
