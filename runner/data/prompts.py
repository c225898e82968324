"""What a model is asked: exactly the tokens before an answer that training shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.data.masks.answers import borders
from runner.data.masks.mask import Encoded, Encoder
from runner.data.templates.messages import MaskError
from runner.errors import StepError


@dataclass(frozen=True)
class Asked:
    """A question in tokens, and the answer that is wanted as a text without special tokens."""

    prompt_ids: list[int]
    expected: str


class Prompts:
    """Turns conversations into questions, by a tokenizer and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer, train_on="last", marks=False)

    def asked(self, chats: Sequence[Mapping[str, Any]]) -> list[Asked]:
        """The question of each conversation, whose last message is the answer."""
        bare = [{**chat, "messages": [_bare(each) for each in chat["messages"]]} for chat in chats]
        return [self._parted(encoded) for encoded in self._encoder.encode_many(bare)]

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer: those that the template ends one with, and eos."""
        endings = self._encoder.template.endings
        stops = {endings.last_token(stop) for stop in endings.stops}
        ids = {int(self._tokenizer.convert_tokens_to_ids(stop)) for stop in stops if stop}
        eos = self._tokenizer.eos_token_id
        return sorted(ids if eos is None else ids | {eos})

    def _parted(self, encoded: Encoded | MaskError) -> Asked:
        if isinstance(encoded, MaskError):
            raise StepError(f"a conversation cannot be asked: {encoded}.")
        first, last = borders(encoded)
        answer = encoded.input_ids[first:last]
        text = self._tokenizer.decode(answer, skip_special_tokens=True)
        return Asked(encoded.input_ids[:first], text.strip())


def _bare(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without its weight: what is not trained can be asked all the same."""
    return {name: value for name, value in message.items() if name != "weight"}
