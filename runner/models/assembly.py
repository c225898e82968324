"""From the files of a model and its adapters to one model in memory, by the options of load."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner import merging, products
from runner.errors import StepError
from runner.memory import preflight
from runner.memory.preflight import Claim
from runner.models import adapters, attention, claim, form, opening, placement, rules
from runner.models.form import Form
from runner.products import Files

Note = Callable[[str], None]


@dataclass(frozen=True)
class Assembled:
    """A model, its tokenizer, the attention chosen, the folder where this very model lies, if any.

    `reference` is the Hub repository and commit of the model or, with adapters, of its base.
    """

    model: Any
    tokenizer: Any
    attention: str
    folder: Path | None
    reference: Mapping[str, Any] | None


def assemble(options: Any, inputs: Mapping[str, Any], note: Note) -> Assembled:
    """Open the base, put the adapters on it and make active, add up or merge what is asked for."""
    base, added = _sorted_out(inputs, note)
    found = form.read(base.folder, base.reference)
    trust = _trusted(options, found, base)
    if why := rules.refused(options, found, adapted=bool(added)):
        raise StepError(f"{base.folder}: {why}.".replace("..", "."))
    config = opening.configuration(found, trust=trust)
    dtype = opening.dtype_of(config) if options.dtype == "checkpoint" else options.dtype
    kind = attention.class_of(config, trust=trust)
    chosen = attention.choose(options.attention, kind, dtype, note)
    how = {
        "dtype": "auto" if options.dtype == "checkpoint" else dtype,
        "attn_implementation": chosen,
        **placement.settings(options.device_map, options.max_memory),
    }
    if options.quantization:
        how["quantization_config"] = opening.bitsandbytes(asdict(options.quantization), dtype)
    if options.preflight and (claimed := _claimed(options, config, found, trust=trust)):
        preflight.refuse(claimed)
    tight = options.quantization is not None
    model = opening.open_whole(found, how, note, trust=trust, tight=tight)
    if added:
        model = _adapted(model, {n: each.folder for n, each in added.items()}, options, note)
    return Assembled(
        model,
        _tokenizer(inputs["files"], base, trust=trust),
        chosen,
        None if added or found.gguf or not _is_as_on_disk(options, found) else base.folder,
        base.reference,
    )


def _claimed(options: Any, config: Any, found: Form, *, trust: bool) -> Claim | None:
    """What the weights take, now that their configuration is there in any case."""
    return claim.claim(options, config, products.weight_bytes(found.folder), trust=trust)


def _is_as_on_disk(options: Any, found: Form) -> bool:
    """Whether the folder holds the model that is in memory.

    In another number format it does not, unless its weights are quantized: then the format is
    only that of computing, and a copy is the one way on: GPTQ weights that transformers 5.17 has
    loaded and writes again are garbage.
    """
    return options.quantization is None and (options.dtype == "checkpoint" or bool(found.quantized))


def _sorted_out(inputs: Mapping[str, Any], note: Note) -> tuple[Files, dict[str, Files]]:
    """The files of the base, and those of the adapters by name."""
    given: Files = inputs["files"]
    base = inputs.get("base")
    others = inputs.get("adapters", {})
    added = {rules.name_of(name): each for name, each in others.items()}
    if form.read(given.folder).is_adapter:
        if base is None:
            raise _no_base(given)
        added = {"model": given, **added}
    elif base is not None:
        raise StepError("base is given, but fetch.model is a whole model.", "Leave out load.base")
    for name, each in added.items():
        adapters.check(each, base or given, name, note)
    return base or given, added


def _no_base(adapter: Files) -> StepError:
    meant = adapters.base_of(adapter.folder)
    of = f"of {meant}, which" if meant else "whose base"
    return StepError(
        f"fetch.model holds an adapter {of} must be fetched too.",
        f"Set fetch.base: {{repo: {meant or 'USER/NAME'}}} and load.base: fetch.base",
    )


def _adapted(model: Any, folders: Mapping[str, Path], options: Any, note: Note) -> Any:
    model = adapters.put_on(model, folders)
    if options.combine:
        how = options.combine
        adapters.combine(model, how.weights, how.method, how.density)
    elif options.active:
        model.set_adapter(options.active, inference_mode=True)
    return merging.merged(model, note) if options.merge else model


def _trusted(options: Any, found: Form, base: Files) -> bool:
    """Whether the folder's code may run; StepError where it is asked for and may not."""
    trust = options.trust_remote_code
    origin = base.reference or {}
    if trust is None:
        return False
    if (trust.repo, trust.commit) != (origin.get("repo"), origin.get("commit")):
        raise StepError(f"the files are not {trust.repo} at {trust.commit}, which is trusted.")
    if elsewhere := form.code_elsewhere(found):
        raise StepError(f"its code {elsewhere} lies in another repository, which is not trusted.")
    for name in found.code:
        if not (found.folder / f"{name.split('.')[0]}.py").exists():
            raise StepError(
                f"its code {name} was not fetched: code is left out unless it is asked for.",
                'Set fetch.model.include: ["*.json", "*.safetensors", "*.txt", "*.py"]',
            )
    return True


def _tokenizer(given: Files, base: Files, *, trust: bool) -> Any:
    """That of fetch.model, which the rows were made with; an adapter without one has its base's."""
    has_one = given.folder == base.folder or (given.folder / form.TOKENIZER).exists()
    folder = given.folder if has_one else base.folder
    return products.open_tokenizer(folder, trust_remote_code=trust)
