"""What a stage is (the contract that every module in runner/stages/ keeps) and what it is given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runner.checkpoint import Checkpoints
from runner.errors import Finding, Stopped
from runner.files import digest
from runner.options import Fault
from runner.resources import Resources

if TYPE_CHECKING:
    from runner.memory.preflight import Claim
    from runner.recipe import Step

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A role that a stage needs filled, by the latest earlier step that gives this kind.

    part      only a part of a fetch step of this name (`model`, `data`), or what the recipe names
    optional  the role may stay empty
    many      every earlier step of this kind fills the role; with `part`, those the recipe names
    named     filled only where the recipe names a step
    consumes  the stage changes the product in place; nobody else may use it after
    restores  reading this stage's own product back asks for the role too
    """

    kind: str
    part: str = ""
    optional: bool = False
    many: bool = False
    named: bool = False
    consumes: bool = False
    restores: bool = False


@dataclass(frozen=True, kw_only=True)
class Room:
    """The bytes that a step takes on disk, as far as they can be known before it runs.

    kept     its result, in the store
    work     the most that its draft holds beside that while it works
    outside  a folder outside the store, and the bytes that go there
    gives    what later steps may reckon with (`bytes`: what it gives, written out whole; `origin`:
             where a model's configuration is found before its weights are there)
    memory   what it takes of memory, asked for only where the step runs: telling it may need a
             model's configuration and torch, which a run with nothing to do never loads; or
             StepError for what only these tell
    leave    asks whether others let the step do its work (a Hub, for a push), likewise only where
             it runs, and before anything does; StepError where they do not
    hints    what is no fault and may still be meant otherwise

    For `runner check` alone, and only where the step would run:

    reach    asks whether what the step brings can be had, for names and sizes alone, and gives
             what later steps may reckon with; StepError where it cannot
    there    gives the step's product where its files are on this machine as they are needed, in a
             scratch folder; None where they would have to be brought or made first
    look     tries the step on a few rows of such products, by role and step, in a scratch folder
    """

    kept: int = 0
    work: int = 0
    outside: tuple[Path, int] | None = None
    gives: Facts = field(default_factory=dict)
    memory: "Callable[[], Claim | None] | None" = None
    leave: Callable[[], None] | None = None
    hints: Sequence[Finding] = ()
    reach: Callable[[], Facts] | None = None
    there: Callable[[Path], Any] | None = None
    look: "Callable[[Products, Path], Looked] | None" = None


Products = Mapping[str, Mapping[str, Any]]
"""Products by role, and in each role by the steps that give them; those that are here."""


@dataclass(frozen=True)
class Looked:
    """What a look at a few rows has found, and what later steps may reckon with because of it."""

    findings: Sequence[Finding] = ()
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """Which step of which recipe a context is of, for what follows it from outside.

    `plain` is the resolved recipe; `folder` one for all runs of it, that outlives them; `place`
    the recipe's own file. `lineage` says of every step that this one builds on, in order, what its
    record does (`runner/lineage.py`), and `sources` what each of those that fetch was pinned to.
    """

    recipe: str = ""
    step: str = ""
    key: str = ""
    plain: Facts = field(default_factory=dict)
    folder: Path | None = None
    place: Path | None = None
    lineage: Sequence[Facts] = ()
    sources: Mapping[str, Facts] = field(default_factory=dict)


@dataclass
class Context:
    """What a running step may ask of the engine."""

    draft: Path
    """A folder of this step's own that outlives a crash."""
    checkpoint: Checkpoints
    """Numbered states of unfinished work: saved whole, and the newest valid one found again."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures for the record and the summary (never part of a key)."""
    progress: Callable[..., None] = lambda done, total, unit, **figures: None
    """progress(done, total, unit, **figures): how far the step is."""
    note: Callable[[str], None] = lambda text: None
    """One line that the user should see."""
    metrics: Callable[[Mapping[str, Any]], None] = lambda row: None
    """One row of figures over time, kept with the result and in the run's folder.

    A row with an earlier `step` than the one before takes back what was measured from there on.
    """
    measured: Sequence[Mapping[str, Any]] = ()
    """The rows that earlier attempts at this step have measured."""
    stop_signal: Callable[[], str | None] = lambda: None
    keep_part: Callable[..., Path] | None = None
    about: About = field(default_factory=About)
    unmet: Sequence[str] = ()
    """What earlier steps require of their figures and is not so: the run will not end well."""

    def part(
        self,
        name: str,
        options: Mapping[str, Any],
        roles: Collection[str],
        make: Callable[[Path], None],
    ) -> Path:
        """A part of the step's work that is kept under a key of its own.

        The key is made of these options and the inputs in these roles, so that the part outlives
        a change of the other ones. `make(folder)` fills a folder that outlives a crash; the result
        is the folder with the finished files.
        """
        if self.keep_part is not None:
            return self.keep_part(name, options, roles, make)
        folder = self.draft / name
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        return folder

    def should_stop(self) -> bool:
        """Whether a signal has asked for a checkpoint and the end of the run."""
        return self.stop_signal() is not None

    def stop_here(self) -> None:
        """Raise Stopped if a signal asked for it; call it where the work so far is kept."""
        if signal_name := self.stop_signal():
            raise Stopped(signal_name)


class Stage(Protocol):
    """A kind of work: one module. Functions shared by two stages are assigned, not inherited."""

    NEEDS: Mapping[str, Need]
    """The roles that a step of this stage needs filled."""
    GIVES: str
    """The kind of product: files, dataset, model, text or scores."""
    VERSION: int
    """Raised whenever the same options and inputs would give another result."""
    PARTS: bool
    """Whether a recipe gives it named parts, each a step of its own (`fetch.model`)."""
    HOLDS: bool
    """Whether the next step gets the product itself (true) or what the store gives back."""
    RESOURCES: Resources
    """What a step asks of a cluster where the recipe says nothing (`launch.resources`)."""
    Options: Any
    """The frozen dataclass of options; the only place where defaults live.

    An option `seed` is the recipe's where it is left out; one called `require` is a gate on the
    figures of the record (`runner/scoring/gates.py`), compared at the end of every run.
    """

    @property
    def __doc__(self) -> str | None: ...  # type: ignore[override]

    def resolve(self, options: Any, locked: Facts) -> Any:
        """Options with everything pinned that floats: an `auto`, a branch, a file's content.

        `locked` is what the lock file says of the step; it counts as far as it fits.
        """

    def pins(self, options: Any, *, find: bool) -> Facts:
        """What a lock file says of the step; with `find`, what is not known yet is asked for."""

    def check(self, options: Any, inputs: Mapping[str, "tuple[Step, ...]"]) -> list[Fault]:
        """What can be known to be wrong before any work; `inputs` are the steps in each role."""

    def stale(self, options: Any, folder: Path, facts: Facts) -> str | None:
        """Why a finished product no longer counts: what it put outside the store is gone.

        `facts` are those of its record.
        """

    def room(self, options: Any, inputs: Mapping[str, Facts]) -> Room:
        """The disk that it will take; `inputs` says of each role what is known of it by now."""

    def run(self, options: Any, inputs: Mapping[str, Any], context: Context) -> Any:
        """Do the work and return the product."""

    def save(self, product: Any, folder: Path) -> None:
        """Write the product into an empty folder, the same bytes for the same product."""

    def restore(self, folder: Path, inputs: Mapping[str, Any]) -> Any:
        """Read the product back; `inputs` restores only those roles that are asked for."""


def version(stage: Stage) -> str:
    """What a key says of a stage's code: its VERSION, and for a third party's its source too."""
    name, source = getattr(stage, "__name__", ""), getattr(stage, "__file__", None)
    if source is None or name.startswith("runner.stages."):
        return str(stage.VERSION)
    return f"{stage.VERSION}+{digest(Path(source))[:16]}"


def resolves_nothing(options: Any, locked: Facts) -> Any:
    """`resolve` of a stage in whose options nothing floats."""
    return options


def pins_nothing(options: Any, *, find: bool) -> Facts:
    """`pins` of a stage that takes nothing from outside."""
    return {}


def checks_nothing(options: Any, inputs: Mapping[str, "tuple[Step, ...]"]) -> list[Fault]:
    """`check` of a stage whose options cannot contradict each other."""
    return []


def takes_little_room(options: Any, inputs: Mapping[str, Facts]) -> Room:
    """`room` of a stage whose result is small, or whose size nobody can tell."""
    return Room()


def never_stale(options: Any, folder: Path, facts: Facts) -> str | None:
    """`stale` of a stage that puts nothing outside the store."""
    return None


def writes_text(inputs: Mapping[str, "tuple[Step, ...]"]) -> list[Fault]:
    """The fault of a model that was taught to score texts, where one that writes is needed."""
    return [
        Fault((), f"{step.name} gives a reward model, which scores texts and writes none.")
        for step in inputs.get("model", ())
        if getattr(step.options, "objective", None) == "reward"
    ]
