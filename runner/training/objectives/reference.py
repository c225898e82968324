"""What the model said of every row before training: computed once, kept beside the checkpoints."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = 256
"""Rows whose figures are kept together, so that a killed run goes on after them."""


class Referred:
    """To be put before a Trainer of trl that compares with a reference model.

    An adapter is compared with the model without it. A model that is trained whole would need a
    second copy of itself; here its figures for every row are computed before training instead.
    """

    REFERENCE: tuple[str, ...] = ()
    """The columns that the figures have in the rows."""

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        from datasets import Dataset, concatenate_datasets

        folder = Path(self.args.output_dir).parent / "reference" / name  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            range(start, min(start + ROWS, len(dataset))) for start in range(0, len(dataset), ROWS)
        ]
        accelerator = self.accelerator  # type: ignore[attr-defined]
        for part in parts[accelerator.process_index :: accelerator.num_processes]:
            if not _path(folder, part).exists():
                _keep(_path(folder, part), self._figures(dataset, part, batch_size))
        accelerator.wait_for_everyone()
        return concatenate_datasets(
            [dataset, Dataset.from_dict(_read(folder, parts, self.REFERENCE))], axis=1
        )

    def _figures(self, dataset: Any, part: range, batch_size: int) -> Any:
        """The reference's log-probabilities of some rows, one column for each name."""
        import numpy

        found: list[Any] = []
        for start in range(part.start, part.stop, batch_size):
            batch = [dataset[row] for row in range(start, min(start + batch_size, part.stop))]
            inputs = self._prepare_inputs(self.data_collator(batch))  # type: ignore[attr-defined]
            columns = self.compute_ref_log_probs(self.model, inputs)  # type: ignore[attr-defined]
            kept = [column.float().cpu().numpy() for column in columns if column is not None]
            found.append(numpy.stack(kept, axis=1))
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)  # type: ignore[attr-defined]
        return numpy.concatenate(found)


def _path(folder: Path, part: range) -> Path:
    return folder / f"{part.start:09}-{part.stop:09}.npy"


def _keep(path: Path, figures: Any) -> None:
    """Write a part so that it is whole once it has its name."""
    import numpy

    written = path.with_suffix(".written.npy")
    with open(written, "wb") as file:
        numpy.save(file, figures)
        file.flush()
        os.fsync(file.fileno())
    os.replace(written, path)


def _read(folder: Path, parts: Sequence[range], names: Sequence[str]) -> dict[str, Any]:
    import numpy

    figures = numpy.concatenate([numpy.load(_path(folder, part)) for part in parts])
    return {name: figures[:, index] for index, name in enumerate(names[: figures.shape[1]])}
