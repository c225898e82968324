"""Answers by vLLM (arXiv:2309.06180), in a process of its own: many rows at once, on GPUs.

vLLM draws by itself, from a seed that is made of the row's id: a row has the same draws whenever
it is answered, though not those of the other engines. It narrows down what is drawn from by min-p
first, then top-k, then top-p. A batch is handed over whole, and how its rows are scheduled follows
from it alone (no process between, nothing cached from the batch before), so that a run that was
killed computes it as it would have been computed.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import files, hardware, merging, network, products, quantized
from runner.answering import constraint, fitting
from runner.answering.asking import Request, Tokens
from runner.answering.ending import Hear
from runner.answering.engines import Drawn, room
from runner.answering.sampling import seed_of
from runner.answering.served import Served
from runner.answering.settings import Options
from runner.errors import StepError
from runner.products import Model
from runner.stage import Context
from runner.training.health import is_out_of_memory

MOST = {"cpu": 64, "cuda": 1024}
"""Rows that are handed over together: what a kill loses."""
ENVIRONMENT = {
    **dict.fromkeys(network.LIBRARIES, "1"),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else rows come to the scheduler at other moments
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONWARNINGS": "ignore",
}


class Vllm:
    """Runs vLLM on a model's folder. The model in memory is only asked what it is."""

    def __init__(self, options: Options, model: Model, context: Context) -> None:
        self.tokens, self._options, self._model = Tokens(model.tokenizer), options, model
        config = model.model.config.get_text_config()
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        self._context, self._written = context, context.draft / "vllm"
        self._served: Served | None = None
        self._aside: Any = None
        self._longest = 0

    def ready(self, longest: int) -> None:
        """Know the length; the process starts with the first batch that is not there yet."""
        self._longest = longest

    def close(self) -> None:
        """End the process, and give the model back as it was lent."""
        if self._served:
            self._served.close()
        if self._aside is not None:
            self._model.model.to(self._aside)
        files.remove(self._written)

    def width(self, length: int) -> int:  # noqa: ARG002  the engines' protocol
        """Nothing is padded: rows of any length go together."""
        return 0

    def rows(self, width: int) -> int:  # noqa: ARG002  the engines' protocol
        """What the options say, or as many as keep the machine busy."""
        if self._options.batch_size != "auto":
            return self._options.batch_size
        return MOST["cuda" if hardware.gpus() else "cpu"]

    def answer(
        self,
        batch: Sequence[Request],
        hear: Hear | None = None,  # noqa: ARG002  the engines' protocol
    ) -> list[Drawn]:
        """All rows of a batch, as vLLM schedules them."""
        self._served = self._served or self._start()
        asked = [
            {
                "ids": list(each.ids),
                "seed": seed_of(each.id, 0),
                "room": room(self._options, self.limit, len(each.ids)),
            }
            for each in batch
        ]
        try:
            found = self._served.ask(asked)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise StepError(f"vLLM does not answer: {error}") from error
        return [Drawn(ids, logprobs) for ids, logprobs in found]

    def _start(self) -> Served:
        self._set_aside()
        job = {
            "folder": str(self._on_disk().resolve()),
            "dtype": str(self._model.model.dtype).removeprefix("torch."),
            "trust": _module(self._model.model).startswith("transformers_modules."),
            "longest": self._longest,
            "rows": min(self.rows(0), *MOST.values()),
            "cached_bytes": fitting.cached_bytes(self._model.model),
            "memory_share": self._options.memory_share,
            "gpus": self._options.gpus,
            "sampling": self._sampling(),
            "constraint": self._constraint(),
        }
        log = self._context.draft / "vllm.log"
        try:
            served = Served("runner.answering.vllm_worker", job, log, ENVIRONMENT)
        except RuntimeError as error:
            raise StepError(f"vLLM does not open the model: {error}", _cure(error)) from error
        self._context.facts["engine"] = served.told
        return served

    def _set_aside(self) -> None:
        """Give vLLM the room on the GPU that the model takes, where it can go elsewhere."""
        model = self._model.model
        spread = len({*getattr(model, "hf_device_map", {}).values()}) > 1
        if model.device.type == "cuda" and not spread and not quantized.description(_under(model)):
            self._aside = model.device
            model.to("cpu")
            hardware.release_memory()

    def _on_disk(self) -> Path:
        """Where the model lies; else it is written, its adapter merged in a copy of it."""
        model = self._model.model
        if self._model.folder is not None:
            return self._model.folder
        files.remove(self._written)
        if hasattr(model, "peft_config"):
            if quantized.description(_under(model)):
                fact = "vLLM takes no adapter on quantized weights."
                raise StepError(fact, "Add it to the weights first: adapt.merge=true")
            model = merging.merged(copy.deepcopy(model), self._context.note)
        name = model.config._name_or_path
        try:
            products.write_model(model, products.untouched(self.tokens.tokenizer), self._written)
        finally:
            model.config._name_or_path = name
        return self._written

    def _sampling(self) -> dict[str, Any]:
        """What is the same for all rows, in vLLM's words."""
        options = self._options
        found: dict[str, Any] = {
            "temperature": options.temperature,
            "repetition_penalty": options.repetition_penalty,
            "min_tokens": options.min_new_tokens,
            "stop": list(options.stop),
            "stop_token_ids": self.tokens.stops,
            "logprobs": 0 if options.logprobs else None,
        }
        if options.temperature > 0:
            found |= {"top_p": options.top_p, "top_k": options.top_k, "min_p": options.min_p}
        return found

    def _constraint(self) -> dict[str, Any] | None:
        """In vLLM's words, with the blanks of every engine."""
        options = self._options
        if options.regex is not None:
            return {"regex": options.regex}
        if options.json_schema is None:
            return None
        return {"json": constraint.with_blanks(options.json_schema)}


def _cure(error: RuntimeError) -> str:
    if is_out_of_memory(error) or "memory" in str(error):
        return "Another share of what is free: generate.memory_share=0.5"
    return "The model may be none of vLLM's: generate.engine=transformers"


def _under(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _module(model: Any) -> str:
    return type(_under(model)).__module__
