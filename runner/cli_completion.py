"""`runner completion` and the hidden `runner complete`: what the shell's TAB key asks."""

from collections.abc import Callable, Sequence


def _completion(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner.completion import SHELLS

    parser = ArgumentParser(
        "runner completion",
        description='The script that completes commands, recipes and options: eval "$(runner'
        ' completion bash)" in ~/.bashrc, or zsh in ~/.zshrc.',
    )
    parser.add_argument("shell", choices=[*SHELLS])
    print(SHELLS[parser.parse_args(words).shell], end="")
    return 0


def complete(words: Sequence[str]) -> int:
    """Print what may come next on this command line, a word a line."""
    from runner import cli
    from runner.completion import candidates

    for each in candidates(" ".join(words), cli.COMMANDS):
        print(each)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "completion": _completion,
    "complete": complete,
}
