"""What is to be known of a chat template before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.data.templates.endings import Endings
from runner.data.templates.messages import MaskError
from runner.data.templates.rendering import Rendering


@dataclass(frozen=True)
class Finding:
    """Something that an audit has to say about a chat template."""

    name: str
    fact: str
    wrong: bool = False


def check_template(tokenizer: Any, eos_ids: Sequence[int] | int | None = None) -> list[Finding]:
    """What is to be known of a chat template before training; `eos_ids`: where generation stops."""
    try:
        rendering = Rendering(tokenizer)
        endings = Endings(rendering)
        stops = tuple(endings.last_token(stop) for stop in endings.stops)
        lacking = endings.lacking
    except MaskError as error:
        return [Finding("template", str(error), wrong=True)]
    found = [Finding("marks", "It marks what is generated itself.")] if rendering.marks else []
    if extra := [text for text in lacking if text]:
        fact = f"Its generation prompt ends with {extra[0]!r}; answers do not begin with that."
        found.append(Finding("prompt", fact))
    if not stops:
        fact = "No token ends an answer: the model would never learn to stop."
        return [*found, Finding("stop", fact, wrong=True)]
    return [*found, *_of_stops(tokenizer, stops, eos_ids)]


def _of_stops(
    tokenizer: Any, stops: Sequence[str], eos_ids: Sequence[int] | int | None
) -> list[Finding]:
    ids = {stop: int(tokenizer.convert_tokens_to_ids(stop)) for stop in stops}
    named = ", ".join(f"{stop} ({number})" for stop, number in ids.items())
    found = [Finding("stop", f"An answer ends with {named}.")]
    known = [eos_ids] if isinstance(eos_ids, int) else list(eos_ids or [])
    known = known or [tokenizer.eos_token_id]
    if ids[stops[0]] not in known:
        fact = f"Generation stops at {known}, but an answer ends with {stops[0]} ({ids[stops[0]]})."
        found.append(Finding("generation", fact, wrong=True))
    return found
