"""The figures of every step, so kept that a training that went on has neither gap nor double."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files

Figures = Mapping[str, Any]


class History:
    """Rows of figures, each with its `step`: told as they come, and kept in the draft.

    Of several processes one writes.
    """

    def __init__(self, path: Path, tell: Callable[[Figures], None], *, writes: bool = True) -> None:
        self.path, self.tell, self.writes = path, tell, writes

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Forget what came after a step; what came before is told again, to the new run's file."""
        rows = [row for row in self._rows() if row["step"] <= step]
        if self.writes:
            files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            self.tell(row)
        return rows

    def add(self, row: Figures) -> None:
        """One more row."""
        if self.writes:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.tell(row)

    def _rows(self) -> list[dict[str, Any]]:
        """All whole rows: a crash may have cut the last one."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows
