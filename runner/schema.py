"""A JSON schema (draft 2020-12) of recipes, made from the stages' options, for editors.

Only keywords are used that editors know from earlier drafts too: yaml-language-server checks
`if`, `anyOf` and `$ref`, and leaves `unevaluatedProperties` alone.
"""

import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union

from runner import places
from runner.link import NAME
from runner.options import plain
from runner.stage import Stage
from runner.sweep.where import LAUNCH, Launch
from runner.top import Top

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SIMPLE: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    type(None): {"type": "null"},
    Any: {},
}
REFERENCE = {"$ref": "#/$defs/reference"}
"""OmegaConf's `${adapt.rank}` may stand for any value."""
OWN_STEP = "A step of a name of your own; `stage` says what it does"
OTHER = {"type": "string", "not": {"const": "_self_"}}


def of_recipes(stages: Mapping[str, Stage], folders: Sequence[Path]) -> Schema:
    """The schema of recipes over these stages; presets are those in these folders.

    Nothing is required within a step, since a preset, another recipe or an override may say it.
    """
    presets = {name: [*places.presets_for(name, folders)] for name in (*stages, LAUNCH)}
    steps = {name: {"$ref": f"#/$defs/{name}"} for name in stages}
    known = {"defaults": _defaults(presets), **_options(Top), **steps}
    has_base = {"properties": {"defaults": {"contains": OTHER}}, "required": ["defaults"]}
    return {
        "$schema": DIALECT,
        "title": "A recipe of runner",
        "type": "object",
        "properties": known,
        "if": has_base,
        "then": _others(known, _own_step(stages, must=())),
        "else": _others(known, _own_step(stages, must=("stage",))),
        "$defs": _definitions(stages),
    }


def of_presets(stage: str, stages: Mapping[str, Stage]) -> Schema:
    """The schema of a stage's presets, or of launch: what a recipe may say of a step of it."""
    return {
        "$schema": DIALECT,
        "title": f"A preset of {stage}",
        "$ref": f"#/$defs/{stage}",
        "$defs": _definitions(stages),
    }


def _definitions(stages: Mapping[str, Stage]) -> Schema:
    reference = {"type": "string", "pattern": r"\$\{.+\}"}
    launch = {**_mapping("Where the jobs of a sweep run", _options(Launch)), "type": "object"}
    return {
        "reference": reference,
        LAUNCH: launch,
        **{name: _step(name, each) for name, each in stages.items()},
    }


def _others(known: Collection[str], own_step: Schema) -> Schema:
    """Whatever stands at the top of a recipe beside what is known there is a step."""
    return {"properties": dict.fromkeys(known, True), "additionalProperties": own_step}


def _own_step(stages: Collection[str], must: Sequence[str]) -> Schema:
    by_stage = [
        {
            "if": {"properties": {"stage": {"const": name}}, "required": ["stage"]},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for name in stages
    ]
    return {
        "description": OWN_STEP,
        "type": ["object", "null"],
        "properties": {"stage": {"enum": [*stages]}},
        "required": [*must],
        "allOf": by_stage,
    }


def _defaults(presets: Mapping[str, Sequence[str]]) -> Schema:
    """Hydra's list of defaults: presets, other recipes, and where the recipe itself comes."""
    choices = {name: {"enum": [*found, None]} for name, found in presets.items()}
    chosen = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {f"/{name}": choice for name, choice in choices.items()},
        "patternProperties": {
            rf"^(override )?(optional )?/?{name}(@[\w.-]+)?$": choice
            for name, choice in choices.items()
        },
        "additionalProperties": False,
    }
    own = {"const": "_self_", "description": "The recipe itself; what follows it wins over it"}
    other = {**OTHER, "description": "Another recipe, which this one changes"}
    about = "The presets of steps, `- /adapt: lora`, `- /generate@before: greedy`"
    return {"description": about, "type": "array", "items": {"anyOf": [own, chosen, other]}}


def _step(name: str, stage: Stage) -> Schema:
    """What a recipe says of a step of this stage, or of each of its parts."""
    about = (stage.__doc__ or "").strip().splitlines()[0]
    takes = {**_roles(stage), **_options(stage.Options)}
    stage_name = {"stage": {"const": name, "description": "The kind of work"}}
    if not stage.PARTS:
        return _mapping(about, {**stage_name, **takes})
    part = _mapping(f"{about} Its name is yours", takes)
    names = {"pattern": f"^{NAME.pattern}$"}
    return {
        **_mapping(about, stage_name),
        "additionalProperties": part,
        "propertyNames": names,
    }


def _mapping(about: str, properties: Schema) -> Schema:
    return {
        "description": about,
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


def _roles(stage: Stage) -> Schema:
    """The roles that a recipe may fill by naming steps."""
    one = {"type": "string"}
    return {
        role: {
            "description": f"The step that gives the {need.kind}; the latest where left out",
            "anyOf": [one, {"type": "array", "items": one}, {"type": "null"}],
        }
        for role, need in stage.NEEDS.items()
    }


def _options(kind: type) -> Schema:
    hints = typing.get_type_hints(kind)
    return {f.name: _option(f, hints[f.name]) for f in fields(kind)}


def _option(field: Field[Any], hint: Any) -> Schema:
    """One option: what it means, its default, and the values that it takes."""
    about: Schema = {"description": field.metadata.get("help", "")}
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    if default is not MISSING:
        about["default"] = plain(default)
    values = [*_values(hint, field.metadata)]
    if any(not value or value == SIMPLE[str] for value in values):
        return {**about, **values[0]} if len(values) == 1 else {**about, "anyOf": values}
    return {**about, "anyOf": [*values, REFERENCE]}


def _values(hint: Any, limits: Mapping[str, Any]) -> Iterator[Schema]:
    """A schema for each kind of value that a type stands for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for arg in args:
            yield from _values(arg, limits)
    elif origin is Literal:
        yield {"enum": [*args]}
    elif origin is tuple:
        yield {"type": "array", "items": _any_of(_values(args[0], {}))}
    elif origin is dict:
        yield {"type": "object", "additionalProperties": _any_of(_values(args[1], {}))}
    elif is_dataclass(hint) and isinstance(hint, type):
        about = (hint.__doc__ or "").strip().splitlines()[0]
        yield {**_mapping(about, _options(hint)), "type": "object"}
    else:
        yield {**SIMPLE[hint], **(_range(limits) if hint in (int, float) else {})}


def _any_of(values: Iterator[Schema]) -> Schema:
    found = [*values]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _range(limits: Mapping[str, Any]) -> Schema:
    named = {"minimum": limits.get("at_least"), "maximum": limits.get("at_most")}
    return {name: limit for name, limit in named.items() if limit is not None}
