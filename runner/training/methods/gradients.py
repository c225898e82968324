"""A check in the first training steps: whatever is trained gets a gradient."""

from collections.abc import Callable, Iterator
from typing import Any

from runner.errors import StepError, listing

SHOWN = 3
STEPS = 3
"""Steps from the first on in which a gradient must come; the rows of one may leave out a part."""


def check(note: Callable[[str], None]) -> Any:
    """A Trainer callback that stops training where a gradient does not reach part of an adapter.

    So looks a base whose weights were spoilt (bitsandbytes 0.50 repacks 4-bit weights under a
    model that was used before): the loss falls, by the few layers after the last spoilt one. In a
    model of experts an adapter may go without, for no token of the batch was sent to it: said only.
    """
    from transformers import TrainerCallback

    reached: dict[str, bool] = {}

    class Check(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            done, last = state.global_step, min(STEPS, state.max_steps) - 1
            if done > last or not hasattr(model, "peft_config"):
                return
            for name, is_reached in _reached(model):
                reached[name] = reached.get(name, False) or is_reached
            missed = [name for name, is_reached in reached.items() if not is_reached]
            if done == last and 0 < len(missed) < len(reached):
                _report(missed, len(reached), model, note)

    return Check()


def _reached(model: Any) -> Iterator[tuple[str, bool]]:
    """Each part of an adapter, and whether any of its trained weights has a gradient.

    Not every weight has: LoRA's A has none as long as its B is zero.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, part in layers or [("prompt", model)]:
        trained = [each for each in part.parameters() if each.requires_grad]
        if trained:
            grads = [each.grad for each in trained]
            yield name, any(grad is not None and bool(grad.any()) for grad in grads)


def _report(missed: list[str], count: int, model: Any, note: Callable[[str], None]) -> None:
    named = listing(missed[:SHOWN]) + (", ..." if len(missed) > SHOWN else "")
    fact = f"no gradient reaches {len(missed)} of {count} parts of the adapter: {named}"
    config = model.config
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts")):
        note(fact)
        return
    raise StepError(f"{fact}.", "Load the model anew, and train before anything else uses it.")
