"""The user's own functions: each read from one file that a recipe names, and watched."""

import ast
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType
from typing import Any

from runner import files
from runner.errors import StepError, did_you_mean, listing


def parted(path: str) -> tuple[Path, str]:
    """File and function of `clean.py:keep`; either is empty where it is not named."""
    file, _, name = path.rpartition(":")
    return Path(file), name


def source_digest(path: str) -> str:
    """What a key says of a function: the digest of the file that it stands in, whole.

    Modules that the file imports are not in it.
    """
    return files.digest(parted(path)[0])


def fault(path: str) -> tuple[str, str] | None:
    """What is wrong with the name of a function and a guess, found without running its file."""
    file, name = parted(path)
    if file.suffix != ".py" or not name.isidentifier():
        return f'"{path}" names no function.', "Write file and function: clean.py:keep"
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}.", ""
    except (SyntaxError, ValueError) as error:
        return f"{file}:{getattr(error, 'lineno', 0)}: is not valid Python ({error}).", ""
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if name in names:
        return None
    return (
        f'{file} has no function "{name}".',
        did_you_mean(name, names) or f"It has: {listing(names)}.",
    )


def load(path: str) -> Callable[..., Any]:
    """The function of `clean.py:keep`; called with `place=`, it says where it failed.

    Raises StepError with the line of the user's file where the function or its file fails.
    """
    file, name = parted(path)
    module = f"runner_user_{files.digest(file)}"
    spec = spec_from_loader(module, _Loader(module, str(file)))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = made = module_from_spec(spec)  # dataclasses look their module up there
    try:
        spec.loader.exec_module(made)
        function = getattr(made, name)
    except (Exception, SystemExit) as error:
        raise StepError(f"{_line(error, file)}: {_named(error)}") from error

    def call(*given: Any, place: object, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except (Exception, SystemExit) as error:
            raise StepError(f"{place}: {_line(error, file)}: {_named(error)}") from error

    return call


class _Loader(SourceFileLoader):
    """Runs the file as it is: no cached bytecode, which an edit within a second would outlive."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  the loader's protocol
        return self.source_to_code(self.get_data(self.path), self.path)


def _line(error: BaseException, file: Path) -> str:
    """The innermost place in the user's file that an error came through."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file.name}:{line}" if line else file.name


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")
