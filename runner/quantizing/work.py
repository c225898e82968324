"""What a method is given to do, and how it tells how far it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.quantizing.settings import Options


@dataclass(frozen=True, kw_only=True)
class Work:
    """The quantizing of one model, in a process of its own that may be killed at any moment.

    whole     a folder with the model unquantized, as `from_pretrained` opens it: safetensors,
              config.json, tokenizer; not to be changed
    target    an empty folder for the result: weights, config.json, generation_config.json
    scratch   a folder that outlives a crash, for what is done already; gone after the step
    options   resolved
    rows      token ids, one list for each row of calibration; none where the method wants none
    progress  progress(done, total, unit), as often as one likes
    note      one line that the user should see
    """

    whole: Path
    target: Path
    scratch: Path
    options: Options
    rows: Sequence[Sequence[int]]
    progress: Callable[[float, float, str], None]
    note: Callable[[str], None]
