"""What stands around every answer of a chat template: its prompt and its stop tokens."""

import re
from collections.abc import Iterable
from functools import cached_property

from runner.data.templates.messages import MaskError, Message
from runner.data.templates.rendering import Rendering


class Endings:
    """What a chat template ends an answer with, and what comes before one."""

    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering

    def last_token(self, stop: str) -> str:
        """The token at the end of a text of tokens."""
        return re.findall(any_of(self.rendering.added), stop)[-1] if stop else ""

    def last_stop(self, text: str) -> str:
        """The stop token at the end of a text; the first where several follow one another."""
        found = list(re.finditer(any_of(self.rendering.special | set(self.stops)), text))
        while len(found) > 1 and found[-2][0] in self.stops:
            if text[found[-2].end() : found[-1].start()].strip():
                break
            found.pop()
        return found[-1][0] if found else ""

    @cached_property
    def _tried(self) -> list[tuple[str, str]]:
        """For an answer at the end and one before: the text behind it, what its start lacks."""
        talk = [
            {"role": role, "content": f"Zq{index}qZ"}
            for index, role in enumerate(("user", "assistant") * 2)
        ]
        return [self._seen(talk[:size], index) for size, index in ((2, 1), (4, 1), (4, 3))]

    def _seen(self, talk: list[Message], index: int) -> tuple[str, str]:
        text = self.rendering.render(talk)
        before, own = talk[index - 1]["content"], talk[index]["content"]
        if before not in text or own not in text:
            raise MaskError("the chat template leaves out messages")
        asked = self.rendering.render(talk[:index], for_answer=True)
        tail = asked[asked.rfind(before) + len(before) :]
        fixed = text[text.rfind(before) + len(before) : text.find(own)]
        behind = text[text.find(own) + len(own) :]
        if index + 1 < len(talk):
            behind = behind[: behind.find(talk[index + 1]["content"])]
        return behind, tail[common(tail, fixed) :]

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """What the template ends an answer with: a token, or several that always follow."""
        last = self._tried[0][0]
        special, added = self.rendering.special, self.rendering.added
        known = special if first_of(special, last)[1] else added
        if not first_of(known, last)[1]:
            return ()  # what follows an earlier answer then is the next message's
        always = last[: common(last, self._tried[1][0])]
        run = re.search(rf"(?:{any_of(known)})+", always)
        several = run[0] if run else ""
        found = [first_of(known, behind)[1] for behind, _ in self._tried]
        return tuple(
            dict.fromkeys(several if several.startswith(stop) else stop for stop in found if stop)
        )

    @cached_property
    def lacking(self) -> tuple[str, ...]:
        """Ends of the generation prompt that are not repeated before an answer."""
        return tuple(sorted({"", *(lacks for _, lacks in self._tried)}, key=len))

    @cached_property
    def prompt(self) -> str:
        """What the template adds for the assistant to go on."""
        talk = [{"role": "user", "content": "Zq0qZ"}]
        asked, plain = self.rendering.render(talk, for_answer=True), self.rendering.render(talk)
        cut = common(asked, plain)
        for token in re.finditer(any_of(self.rendering.added), asked):
            if token.start() < cut < token.end():
                cut = token.start()
        return asked[cut:]


def any_of(tokens: Iterable[str]) -> str:
    """A pattern for any of these texts, the longest first."""
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)"


def first_of(tokens: Iterable[str], text: str) -> tuple[int, str]:
    """Where the first of these tokens stands in a text, and which; -1 and nothing without."""
    found = re.search(any_of(tokens), text)
    return (found.start(), found[0]) if found else (-1, "")


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    size = min(len(one), len(other))
    return next((index for index in range(size) if one[index] != other[index]), size)
