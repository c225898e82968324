"""What can be known to be wrong with the options of `process` before any row is read."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from runner.errors import did_you_mean, listing
from runner.options import Fault


def faults(options: Any, sources: Sequence[str]) -> Iterator[Fault]:
    """All that is wrong; `sources` are the steps that bring the rows."""
    for name in ("rules", "template_digest"):
        if getattr(options, name) is not None:
            yield Fault((name,), f"{name} is found, and not given.")
    if options.pack and options.shape in ("preference", "unpaired"):
        yield Fault(("pack",), f"rows of the shape {options.shape} cannot be packed.")
    if options.train_on == "all" and options.shape in ("preference", "unpaired"):
        fact = f"of rows of the shape {options.shape} only the answers are learnt."
        yield Fault(("train_on",), fact, "Leave train_on out.")
    yield from _template(options.template)
    yield from _columns(options.shape, options.columns)
    yield from _mixing(options, sources)


def _template(path: Path | None) -> Iterator[Fault]:
    """A chat template that is no template."""
    if path is None or not path.is_file():
        return
    from jinja2 import TemplateSyntaxError

    try:
        _jinja().parse(path.read_text(encoding="utf-8"))
    except TemplateSyntaxError as error:
        fact = f"{path}:{error.lineno}: is no chat template: {error.message}."
        yield Fault(("template",), fact.replace("..", "."), "It is written in Jinja.")
    except UnicodeDecodeError:
        yield Fault(("template",), f"{path} is not UTF-8 text.")


@cache
def _jinja() -> Any:
    """What reads templates as transformers does: with loop controls, and marks of what is trained.

    https://huggingface.co/docs/transformers/chat_templating_writing
    """
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """`{% generation %}`."""

        tags = {"generation"}  # noqa: RUF012  its base says it so

        def parse(self, parser: Any) -> nodes.Node:
            """The block between the marks."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Environment(extensions=[Generation, "jinja2.ext.loopcontrols"], autoescape=True)


def _columns(shape: str, columns: Mapping[str, str]) -> Iterator[Fault]:
    """Names that no shape has."""
    if not columns:
        return
    from runner.data.shapes.table import SHAPES

    shapes = SHAPES.values() if shape == "auto" else [SHAPES[shape]]
    known = list(dict.fromkeys(name for each in shapes for name in (*each.needs, *each.takes)))
    for name in columns:
        if name not in known:
            whose = "no shape has a" if shape == "auto" else f"{shape} has no"
            guess = did_you_mean(name, known) or f"Columns are: {listing(known)}."
            yield Fault(("columns", name), f'columns: {whose} column "{name}".', guess)


def _mixing(options: Any, sources: Sequence[str]) -> Iterator[Fault]:
    """What is wrong with the weights of these sources."""
    weights, strategy = options.weights, options.stopping_strategy
    if not weights and strategy != "first_exhausted":
        yield Fault(("stopping_strategy",), "stopping_strategy has no effect without weights.")
    if not weights:
        return
    for name, weight in weights.items():
        if name not in sources:
            guess = did_you_mean(name, sources) or f"The sources are: {listing(sources)}."
            yield Fault(("weights", name), f'weights: "{name}" is no source here.', guess)
        if weight <= 0:
            yield Fault(("weights", name), f"weights.{name} must be more than 0.")
    if lacking := [name for name in sources if name not in weights]:
        yield Fault(("weights",), f"weights says nothing of {listing(lacking)}.")
    if strategy == "all_exhausted" and options.held_out:
        fact = "all_exhausted repeats rows, so that rows held out would be trained too."
        yield Fault(("stopping_strategy",), fact, "Hold none out: held_out: 0")
