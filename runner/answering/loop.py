"""The loop over batches: rows are kept as they come; where memory ends, smaller ones go on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from runner import hardware
from runner.answering import asking, engines
from runner.answering.asking import Prompt, Request
from runner.answering.ending import Hear, ended
from runner.answering.engines import Drawn, Engine
from runner.answering.keeping import Journal
from runner.answering.settings import Options
from runner.answering.streaming import Stream
from runner.products import Row
from runner.stage import Context


def answers(
    options: Options,
    inputs: Mapping[str, Any],
    context: Context,
    asked: Sequence[Prompt] | None = None,
    stream: Stream | None = None,
) -> list[Row]:
    """Answer everything that is asked, going on after the rows that a killed run has kept.

    `asked` stands for what the options and the inputs would ask; `stream` is for one answer alone.
    """
    if asked is None:
        asked = asking.prompts(options, inputs.get("dataset"))
    with closing(engines.of(options, inputs, context)) as engine:
        wanted = asking.requests(options, asked, engine.tokens)
        hear = stream.heard(engine.tokens) if stream else None
        return _Answering(options, engine, context, wanted, hear).rows()


def batches(wanted: Sequence[Request], engine: Engine) -> Iterator[list[Request]]:
    """All requests in batches of one width, the widest first, since they take the most memory.

    They depend on the requests alone, and not on how many of them are done.
    """
    widths: dict[int, list[Request]] = {}
    for each in wanted:
        widths.setdefault(engine.width(len(each.ids)), []).append(each)
    for width in sorted(widths, reverse=True):
        size, some = engine.rows(width), widths[width]
        yield from (some[at : at + size] for at in range(0, len(some), size))


class _Answering:
    """One run over the requests."""

    def __init__(
        self,
        options: Options,
        engine: Engine,
        context: Context,
        wanted: Sequence[Request],
        hear: Hear | None,
    ) -> None:
        self._options, self._engine, self._context = options, engine, context
        self._wanted, self._hear = wanted, hear
        self._journal = Journal(context.draft / "rows.jsonl")
        self._begun, self._tokens, self._at_most = time.monotonic(), 0, len(wanted)

    def rows(self) -> list[Row]:
        """Every row, in the order of the requests."""
        refused = {r.number: why for r in self._wanted if (why := self._refusal(r))}
        able = [each for each in self._wanted if each.number not in refused]
        self._keep({n: _failed(self._wanted[n], why) for n, why in refused.items()})
        longest = max((len(each.ids) + self._room(each) for each in able), default=0)
        self._engine.ready(longest)
        for batch in batches(able, self._engine):
            if any(each.number not in self._journal.rows for each in batch):
                self._answer(batch)  # whole, so that it is the batch that was killed
        rows = [self._journal.rows[each.number] for each in self._wanted]
        self._context.facts |= _facts(rows)
        return rows

    def _room(self, request: Request) -> int:
        return engines.room(self._options, self._engine.limit, len(request.ids))

    def _refusal(self, request: Request) -> str:
        """Why a request cannot be answered at all."""
        if not request.ids:
            return "the prompt is empty"
        if self._room(request) > 0:
            return ""
        return f"the prompt has {len(request.ids)} tokens, and the model takes {self._engine.limit}"

    def _answer(self, batch: Sequence[Request]) -> None:
        """Answer a batch; where memory runs out, its halves, and smaller ones from then on."""
        for at in range(0, len(batch), self._at_most):
            some = batch[at : at + self._at_most]
            begun = time.monotonic()
            drawn = self._drawn(some)
            if drawn is None and len(some) > 1:
                self._at_most = (len(some) + 1) // 2
                self._context.note(f"memory ran out: batches of at most {self._at_most} from here")
                self._answer(some)
                continue
            self._take(some, drawn, time.monotonic() - begun)

    def _drawn(self, some: Sequence[Request]) -> list[Drawn] | None:
        """The answers; None where there was not enough memory for them."""
        from runner.training.health import is_out_of_memory

        try:
            return self._engine.answer(some, self._hear)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        hardware.release_memory()  # when the error, which holds what was computed, is gone
        return None

    def _take(self, some: Sequence[Request], drawn: list[Drawn] | None, seconds: float) -> None:
        """Keep the rows of a batch, say how fast it was, and stop here if that is asked for."""
        if drawn is None:
            self._keep({r.number: _failed(r, "there is not enough memory for it") for r in some})
        else:
            rows = {r.number: self._row(r, d) for r, d in zip(some, drawn, strict=True)}
            self._keep(rows)
            tokens = sum(row["answer_tokens"] for row in rows.values())
            self._tokens += tokens
            self._context.metrics(
                {
                    "step": len(self._journal.rows),
                    "rows": len(some),
                    "answer_tokens": tokens,
                    "batch_seconds": round(seconds, 3),
                    "tokens_per_second": round(tokens / seconds, 1),
                }
            )
        rate = round(self._tokens / (time.monotonic() - self._begun), 1)
        done, total = len(self._journal.rows), len(self._wanted)
        self._context.progress(done, total, "prompts", tokens_per_second=rate)
        self._context.stop_here()

    def _keep(self, rows: Mapping[int, Row]) -> None:
        new = {number: row for number, row in rows.items() if number not in self._journal.rows}
        if new:
            self._journal.add(new)

    def _row(self, request: Request, drawn: Drawn) -> Row:
        tokens, options = self._engine.tokens, self._options
        found = ended(drawn.ids, tokens.stops, options.stop, tokens.text)
        row = _row(request, tokens.said(options, found.text), found.finish, found.tokens)
        if options.logprobs:
            assert drawn.logprobs is not None
            row["logprobs"] = [round(each, 6) for each in drawn.logprobs[: found.tokens]]
        return row


def _row(request: Request, answer: str, finish: str, tokens: int) -> Row:
    return {
        "id": request.id,
        "prompt": request.prompt,
        "sample": request.sample,
        "expected": request.expected,
        "answer": answer,
        "finish": finish,
        "reason": None,
        "prompt_tokens": len(request.ids),
        "answer_tokens": tokens,
    }


def _failed(request: Request, reason: str) -> Row:
    return _row(request, "", "error", 0) | {"reason": reason}


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    failed = sum(row["finish"] == "error" for row in rows)
    return {
        "rows": len(rows),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "answer_tokens": sum(row["answer_tokens"] for row in rows),
        **({"failed": failed} if failed else {}),
    }
