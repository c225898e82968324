"""The text of an answer while it is made: what no later token can take back."""

from collections.abc import Callable, Sequence

from runner.answering.asking import Tokens
from runner.answering.ending import Hear, ended
from runner.answering.settings import Options

TORN = "\ufffd"
"""What stands for a character of which some bytes are still to come."""


class Stream:
    """Tells an answer piece by piece; together they are the answer of its row."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self._options, self._tell, self._said = options, tell, ""

    def heard(self, tokens: Tokens) -> Hear:
        """What an engine calls."""

        def hear(ids: Sequence[int]) -> None:
            found = ended(ids, tokens.stops, self._options.stop, tokens.text)
            whole = tokens.said(self._options, found.text)
            self._say(whole if found.finish == "stop" else self._sure(whole))

        return hear

    def end(self, answer: str) -> None:
        """Tell what is left of an answer; all of it where something else was told before."""
        if not answer.startswith(self._said):
            self._tell("\n")
            self._said = ""
        self._say(answer)

    def _say(self, text: str) -> None:
        if len(text) > len(self._said) and text.startswith(self._said):
            self._tell(text[len(self._said) :])
            self._said = text

    def _sure(self, text: str) -> str:
        """Without what may begin a stop text, half a character, and blanks at the end."""
        stops = self._options.stop
        begun = (
            size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])
        )
        return text[: len(text) - max(begun, default=0)].rstrip(TORN).rstrip()
