"""The commands' own argument parsers, and what they make of a line, without carrying it out."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from runner import cli

PARSES = ("parse_args", "parse_intermixed_args")


class _Held(Exception):  # noqa: N818  no error: it ends a command before it does anything
    """What a command has when it is about to begin."""

    def __init__(self, found: Any) -> None:
        self.found = found


def parser_of(command: str) -> ArgumentParser:
    """The parser of a command."""
    found: ArgumentParser = _held(command, [], lambda parser, _: parser)
    return found


def parsed(words: Sequence[str]) -> Namespace:
    """What a command takes from the words that follow `runner`.

    SystemExit where it finds them wrong, KeyError where there is no such command.
    """
    found: Namespace = _held(words[0], words[1:], lambda _, parse: parse())
    return found


def _held(command: str, words: Sequence[str], look: Callable[..., Any]) -> Any:
    """Call a command as far as where it parses its words, and look at the parser there."""
    own = {name: getattr(ArgumentParser, name) for name in PARSES}

    def instead(name: str) -> Callable[..., Any]:
        def parse(parser: ArgumentParser, rest: Sequence[str]) -> Any:
            with patch.multiple(ArgumentParser, **own):
                raise _Held(look(parser, lambda: own[name](parser, rest)))

        return parse

    with patch.multiple(ArgumentParser, **{name: instead(name) for name in PARSES}):
        try:
            cli.COMMANDS[command](words)
        except _Held as held:
            return held.found
    raise AssertionError(f"{command} has no parser")
