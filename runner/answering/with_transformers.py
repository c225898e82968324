"""Answers by transformers: batches of prompts that are padded to the same width.

What a row's answer depends on. The width that a prompt is padded to follows from its own length
alone, so that a row has the same shape in every batch, and the places of its tokens are the same.
The noise of a draw belongs to the row (`sampling`). What is left is how the machine multiplies
matrices: on a CPU with bfloat16 in hardware (AVX-512) the logits of SmolLM2-135M were the same to
the bit in batches of 2 to 39 rows, and other ones alone, since a matrix with one row is multiplied
by other code; so a row is never computed alone. There the batch size changes nothing. In float32
they differed by up to 6e-5 between batches, and on GPUs libraries choose by the size as well:
there another batch size can give another token where two are as good as equally likely. A run that
is killed and goes on with the same batch size forms the same batches, also there.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from runner.answering import constraint, fitting, sampling
from runner.answering.asking import Request, Tokens
from runner.answering.ending import Hear, ended
from runner.answering.engines import Drawn, room
from runner.answering.settings import Options
from runner.errors import StepError
from runner.products import Model

TOGETHER = 2
"""Rows that are computed at least, on a CPU (see above)."""
FEW = 8
"""Rows that stay together until the last of them is over."""
STEP = 16
"""Prompts are padded to multiples of this at least."""
NEUTRAL: Mapping[str, Any] = {
    "do_sample": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}
"""Settings that a model's own generation_config must not bring in: what counts is the recipe."""


@dataclass
class _Answer:
    """What is there of an answer so far."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def take(self, ids: list[int], logprobs: Sequence[float]) -> None:
        """All tokens so far, and the log-probabilities of the new ones."""
        self.ids = ids
        self.logprobs += logprobs


class Transformers:
    """Runs `generate` of transformers, on the device where the model is."""

    def __init__(self, options: Options, model: Model, assistant: Model | None) -> None:
        self.tokens, self._options, self._model = Tokens(model.tokenizer), options, model.model
        self._assistant = assistant.model if assistant else None
        self.limit = getattr(self._config(), "max_position_embeddings", None)
        self._stops = self.tokens.stops
        self._guesses = bool(assistant) or options.prompt_lookup > 0
        self._unpadded = self._guesses or _has_prompt(self._model)
        self._constraint = self._constrained()
        self._hear: Hear | None = None
        if assistant and assistant.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            fact = "the assistant has another vocabulary than the model, and cannot guess for it."
            raise StepError(fact, "Name a smaller model of the same family as assistant.")

    def ready(self, longest: int) -> None:
        """Nothing: memory is taken batch by batch."""

    def close(self) -> None:
        """Nothing: the model is only borrowed."""

    def width(self, length: int) -> int:
        """At least one more than the prompt has, so that every batch has padding and a mask.

        With a trained prompt before each row, and where tokens are guessed, nothing is padded.
        """
        if self._unpadded:
            return length
        step = max(STEP, (1 << (length + 1).bit_length() - 1) // 4)
        return -(-(length + 1) // step) * step

    def rows(self, width: int) -> int:
        """One where tokens are guessed; else what the options say, or what fits."""
        if self._guesses:
            return 1
        if self._options.batch_size != "auto":
            return self._options.batch_size
        longest = width + self._options.max_new_tokens
        return fitting.rows(self._model, width, longest, self._options.beams)

    def answer(self, batch: Sequence[Request], hear: Hear | None = None) -> list[Drawn]:
        """Generate for prompts of one width; a batch that is too small is filled with its last."""
        import torch

        self._hear = None if self._options.beams > 1 or self._guesses else hear
        whole = [*batch, *[batch[-1]] * (self._least - len(batch))]
        lengths = [room(self._options, self.limit, len(each.ids)) for each in whole]
        with torch.inference_mode(), one_head(self._model), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Position ids are not supported", UserWarning)
            answers = self._in_rounds(whole, lengths)
        found = zip(answers[: len(batch)], lengths, strict=False)
        return [
            Drawn(each.ids[:length], each.logprobs[:length] if self._options.logprobs else None)
            for each, length in found
        ]

    def _in_rounds(self, whole: Sequence[Request], lengths: Sequence[int]) -> list["_Answer"]:
        """Go on with the rows that are not over, each time that half of them are.

        Their keys and values are taken along, and so each row is computed as if all had stayed.
        """
        import torch

        width = self.width(len(whole[0].ids))
        pads = [width - len(each.ids) for each in whole]
        ids, mask = self._padded(whole, pads)
        cache = self._cache()
        answers, there = [_Answer() for _ in whole], list(range(len(whole)))
        going = there
        while going:
            left = [lengths[row] if row in going else 0 for row in there]
            rows, own = [whole[row] for row in there], [pads[row] for row in there]
            new, logprobs = self._round(rows, own, width, ids, mask, left, cache)
            for place, row in enumerate(there):
                if row in going:
                    answers[row].take(new[place, width:].tolist(), logprobs[place])
            going = [row for row in going if not self._is_over(answers[row].ids, lengths[row])]
            if cache is None or not going:
                break
            stay = [*going, *(row for row in there if row not in going)]
            places = sorted(there.index(row) for row in stay[: max(len(going), self._least)])
            kept = torch.tensor(places, device=ids.device)
            ids, there = new[kept], [there[place] for place in places]
            mask = torch.nn.functional.pad(mask[kept], (0, ids.shape[1] - mask.shape[1]), value=1)
            cache.batch_select_indices(kept)
        return answers

    def _round(
        self,
        rows: Sequence[Request],
        pads: Sequence[int],
        width: int,
        ids: Any,
        mask: Any,
        lengths: Sequence[int],
        cache: Any,
    ) -> tuple[Any, Sequence[Any]]:
        """Generate until half of the rows are over, or all of a few; ids, and log-probabilities."""
        names = [each.id for each in rows]
        steps = sampling.steps(self._options, names, pads, width, self._stops, self._constraint)
        recorder = sampling.Recorder(ids.shape[1]) if self._options.logprobs else None
        half = cache is not None and len(rows) > FEW
        stops = self._stops if half else ()
        ends = [sampling.Ends(self._options.stop, width, lengths, self.tokens.text, stops)]
        heard = [sampling.Heard(self._hear, width)] if self._hear else []
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=_list([recorder, *steps] if recorder else steps),
            stopping_criteria=_criteria([*ends, *heard]),
            **({} if cache is None else {"past_key_values": cache}),
            **self._settings(max(lengths) - (ids.shape[1] - width)),
        )
        return output, recorder.taken(output) if recorder else [()] * len(rows)

    def _is_over(self, answer: Sequence[int], length: int) -> bool:
        if len(answer) >= length:
            return True
        return ended(answer, self._stops, self._options.stop, self.tokens.text).finish == "stop"

    def _cache(self) -> Any:
        """One that rows can leave; None where rows stay together, or hold more than a cache."""
        from transformers import DynamicCache, cache_utils

        if self._unpadded or self._options.beams > 1:
            return None
        cache = DynamicCache(config=self._config())
        able = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
        return cache if cache.layers and all(type(x) in able for x in cache.layers) else None

    @property
    def _least(self) -> int:
        """The rows that are computed at least."""
        return TOGETHER if self._model.device.type == "cpu" and not self._guesses else 1

    def _padded(self, batch: Sequence[Request], pads: Sequence[int]) -> tuple[Any, Any]:
        """Ids and mask (rows x width), padded on the left."""
        import torch

        fill = self.tokens.tokenizer.pad_token_id
        ids = [[fill] * pad + list(each.ids) for each, pad in zip(batch, pads, strict=True)]
        mask = [[0] * pad + [1] * len(each.ids) for each, pad in zip(batch, pads, strict=True)]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _settings(self, max_new_tokens: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            **NEUTRAL,
            "max_new_tokens": max_new_tokens,
            "pad_token_id": self.tokens.tokenizer.pad_token_id,
            "eos_token_id": self._stops or None,
            "num_beams": self._options.beams,
        }
        if self._options.beams > 1:
            found["length_penalty"] = self._options.length_penalty
        if self._options.prompt_lookup:
            found["prompt_lookup_num_tokens"] = self._options.prompt_lookup
        if self._assistant is not None:
            found["assistant_model"] = self._assistant
        return found

    def _constrained(self) -> "constraint.Constraint | None":
        if self._options.json_schema is None and self._options.regex is None:
            return None
        text = constraint.grammar(self._options.json_schema, self._options.regex)
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        return constraint.Constraint(text, self.tokens.tokenizer, self._stops, vocabulary)

    def _config(self) -> Any:
        return self._model.config.get_text_config()


def _list(steps: Sequence[Any]) -> Any:
    """As `generate` takes them; it asks of each only that it can be called."""
    from transformers import LogitsProcessorList

    return LogitsProcessorList(steps)


def _criteria(ends: Sequence[Any]) -> Any:
    from transformers import StoppingCriteriaList

    return StoppingCriteriaList(ends)


def _has_prompt(model: Any) -> bool:
    """Whether a trained prompt stands before each row; padding would come between the two."""
    forms = getattr(model, "peft_config", {}).values()
    return any(form.is_prompt_learning for form in forms)


@contextmanager
def one_head(model: Any) -> Iterator[None]:
    """Keep torch from copying the output layer's weights once for every row of the batch.

    transformers hands that layer a strided slice, and torch 2.13 multiplies such a slice by
    frozen weights as a batch: 1.8 GB and seconds more, for 32 rows of a model of 0.3 GB.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0].contiguous(), *given[1:])
    )
    try:
        yield
    finally:
        hook.remove()
