"""Answers by llama.cpp, from a GGUF file: one row at a time, drawn as every engine draws.

llama.cpp gives the scores of the next token; what is done to them and how one is drawn is
`sampling`, so that settings and seeds mean what they mean elsewhere. The weights are rounded in
another way than those of transformers, and so answers may differ.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import convert, hardware
from runner.answering import constraint, sampling
from runner.answering.asking import Request, Tokens
from runner.answering.ending import Hear, says_stop
from runner.answering.engines import Drawn, room
from runner.answering.settings import Options
from runner.errors import StepError

AT_ONCE = 256
"""Tokens of a prompt that are read at once."""


def opened(options: Options, folder: Path) -> "Llama":
    """The model of a folder's GGUF file; StepError where there is not exactly one."""
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        fact = f"llama.cpp takes one GGUF file, and the step gives {len(found) or 'none'}."
        raise StepError(fact, "Of a fetch step: fetch.model.convert_gguf=false, and an include.")
    return Llama(options, found[0])


class Llama:
    """Runs one GGUF file."""

    def __init__(self, options: Options, path: Path) -> None:
        self._options, self._path = options, path
        self.tokens = Tokens(convert.open_gguf_tokenizer(path))
        self._stops = self.tokens.stops
        self._model = self._open(vocab_only=True)
        trained = self._model.metadata
        self.limit: int | None = next(
            (int(value) for name, value in trained.items() if name.endswith(".context_length")),
            None,
        )
        self._constraint = self._constrained()

    def ready(self, longest: int) -> None:
        """Read the weights, with a cache of keys and values for so many tokens."""
        self._model.close()
        self._model = self._open(n_ctx=longest)

    def close(self) -> None:
        """Give the weights back."""
        self._model.close()

    def width(self, length: int) -> int:
        """Nothing is padded."""
        return length

    def rows(self, width: int) -> int:  # noqa: ARG002  the engines' protocol
        """One."""
        return 1

    def answer(self, batch: Sequence[Request], hear: Hear | None = None) -> list[Drawn]:
        """Each prompt by itself."""
        return [self._answer(each, None if at else hear) for at, each in enumerate(batch)]

    def _answer(self, request: Request, hear: Hear | None) -> Drawn:
        import torch

        width, options = len(request.ids), self._options
        recorder = sampling.Recorder(width) if options.logprobs else None
        steps: list[sampling.Step] = [recorder] if recorder else []
        steps += sampling.steps(options, [request.id], [0], width, self._stops, self._constraint)
        ids, fresh = list(request.ids), list(request.ids)
        self._model.reset()
        for _ in range(room(options, self.limit, width)):
            self._model.eval(fresh)
            so_far, scores = torch.tensor([ids]), self._scores()
            for step in steps:
                scores = step(so_far, scores)
            fresh = [int(scores.argmax())]
            ids += fresh
            if hear:
                hear(ids[width:])
            if fresh[0] in self._stops or self._says_stop(ids[width:]):
                break
        logprobs = recorder.taken(torch.tensor([ids]))[0] if recorder else None
        return Drawn(ids[width:], logprobs)

    def _scores(self) -> Any:
        """Of the next token (1 x vocabulary), a copy."""
        import llama_cpp
        import numpy as np
        import torch

        size = self._model.n_vocab()
        found = llama_cpp.llama_get_logits_ith(self._model.ctx, -1)
        return torch.from_numpy(np.ctypeslib.as_array(found, shape=(size,)).copy())[None]

    def _says_stop(self, ids: Sequence[int]) -> bool:
        texts = self._options.stop
        return bool(texts) and says_stop(ids, texts, self.tokens.text)

    def _open(self, **settings: Any) -> Any:
        import llama_cpp

        return llama_cpp.Llama(
            str(self._path),
            n_batch=AT_ONCE,
            n_ubatch=AT_ONCE,
            n_threads=hardware.cores(),
            n_threads_batch=hardware.cores(),
            n_gpu_layers=-1 if hardware.gpus() else 0,
            verbose=False,
            **settings,
        )

    def _constrained(self) -> "constraint.Constraint | None":
        if self._options.json_schema is None and self._options.regex is None:
            return None
        text = constraint.grammar(self._options.json_schema, self._options.regex)
        vocabulary = self._model.n_vocab()
        return constraint.Constraint(text, self.tokens.tokenizer, self._stops, vocabulary)
