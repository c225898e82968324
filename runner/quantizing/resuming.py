"""What llm-compressor has done of a model is kept on disk, and a run after a crash goes on there.

llm-compressor 0.14 goes through a model piece by piece, a piece being a layer or what stands before
the first. It shows a piece all rows, quantizes it, and shows it the rows again for what the next
piece is to be given. Here each piece is kept once it is quantized; a later run puts it in place as
it is, and of the three does only the last.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runner import files
from runner.quantizing.work import Work

LIBRARIES = ("llmcompressor", "compressed-tensors", "transformers", "torch")
MADE_WITH = "made_with.json"


@contextmanager
def pieces(model: Any, work: Work, passes: int) -> Iterator[None]:
    """While it lasts, what llm-compressor does is kept in `scratch`, and what is there is used.

    `passes` is how many times it goes through the model. Of a release that goes about it in another
    way nothing is kept.
    """
    try:
        from compressed_tensors.utils import patch_attr
        from llmcompressor.core import LifecycleCallbacks
        from llmcompressor.pipelines.sequential.helpers import Subgraph

        show, quantize = Subgraph.forward, LifecycleCallbacks.sequential_epoch_end
    except (ImportError, AttributeError):
        work.note(f"nothing is kept of llm-compressor {version('llmcompressor')} before its end")
        yield
        return
    total = passes * (model.config.get_text_config().num_hidden_layers + 1)

    def told(done: int) -> None:
        work.progress(done, max(done, total), "layers")

    kept = Kept(work.scratch, work.note)
    through = Through(model, kept, show, quantize, told)
    with (
        patch_attr(Subgraph, "forward", lambda *said, **given: through.show(*said, **given)),
        patch_attr(LifecycleCallbacks, "sequential_epoch_end", through.quantize),
    ):
        yield


class Kept:
    """The tensors of each piece that is done, by its number, in files that are whole or absent."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder = folder
        made_with = {name: version(name) for name in LIBRARIES}
        found = files.read_json(folder / MADE_WITH)
        if found is not None and found != made_with:
            note("begins again, for what was kept was made with other releases of libraries")
        if found != made_with:
            for path in folder.iterdir():
                files.remove(path)
            files.write_json(folder / MADE_WITH, made_with)

    def has(self, number: int) -> bool:
        """Whether a piece is done."""
        return self._path(number).exists()

    def read(self, number: int) -> dict[str, Any]:
        """A piece's tensors by their names in the model."""
        from safetensors.torch import load_file

        return load_file(self._path(number))

    def write(self, number: int, tensors: Mapping[str, Any]) -> None:
        """Keep a piece, so that it outlives a crash."""
        from safetensors.torch import save_file

        temporary = self.folder / "writing"
        save_file(dict(tensors), temporary)
        files.sync(temporary)
        os.replace(temporary, self._path(number))
        files.sync(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04}.safetensors"


class Through:
    """One way through a model, or several one after the other, that stands in for llm-compressor's.

    It calls `show` with every piece and row and, once a piece was shown all of them, `quantize`
    with its modules; then `show` again.
    """

    def __init__(
        self,
        model: Any,
        kept: Kept,
        show: Callable[..., Any],
        quantize: Callable[..., Any],
        told: Callable[[int], None],
    ) -> None:
        self.model, self.kept, self.told = model, kept, told
        self._show, self._quantize = show, quantize
        self.done, self.shown, self.quantized = 0, None, None

    def show(self, piece: Any, *said: Any, **given: Any) -> Any:
        """What a piece makes of a row; nothing where it is not needed to quantize it."""
        self.shown = piece
        if piece is not self.quantized and self.kept.has(self.done):
            return {}
        return self._show(piece, *said, **given)

    def quantize(self, modules: Any, **given: Any) -> None:
        """Quantize the piece that was shown, or put in place what was kept of it."""
        if self.kept.has(self.done):
            self._put(self.kept.read(self.done))
        else:
            self._quantize(modules, **given)
            self.kept.write(self.done, self._tensors(modules))
        self.done, self.quantized = self.done + 1, self.shown
        self.told(self.done)

    def _put(self, tensors: Mapping[str, Any]) -> None:
        from compressed_tensors.utils import update_offload_parameter

        for name, tensor in tensors.items():
            module, _, own = name.rpartition(".")
            update_offload_parameter(self.model.get_submodule(module), own, tensor)

    def _tensors(self, modules: Any) -> dict[str, Any]:
        """What a piece may have changed: all but embeddings, the output layer, and observers."""
        from compressed_tensors import InternalModule

        model = self.model
        names = {module: name for name, module in model.named_modules()}
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        return {
            f"{names[module]}.{name}": tensor.detach().cpu().contiguous()
            for module in modules
            if module not in ends and not isinstance(module, InternalModule)
            for name, tensor in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            )
        }
