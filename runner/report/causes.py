"""What has likely gone wrong, told from what an error says: one table, the likeliest first."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runner.errors import StepError


@dataclass(frozen=True)
class Cause:
    """A cause, the words by which it is known, and what helps.

    `signs` is a regular expression that fits `Class: text` of an error, or a line of a log;
    `options` are the options, of any step, that have a part in it.
    """

    name: str
    signs: re.Pattern[str]
    cure: str
    options: tuple[str, ...] = ()


def _signs(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


CAUSES = (
    Cause(
        "the memory is full",
        _signs(
            r"out of ?memory",
            r"MemoryError",
            r"not enough memory",
            r"can.?t allocate memory",
            re.escape(os.strerror(errno.ENOMEM)),
            r"\bSIGKILL\b",
            r"CUBLAS_STATUS_ALLOC_FAILED",
        ),
        "Take fewer or shorter rows at once (adapt.micro_batch_size=1, process.max_length=512,"
        " generate.batch_size=4), adapt.gradient_checkpointing=true, adapt=qlora, or a smaller"
        " model. Does another program hold the memory? See: nvidia-smi, or free -h",
        ("micro_batch_size", "max_length", "gradient_checkpointing", "batch_size", "dtype"),
    ),
    Cause(
        "the disk is full",
        _signs(
            re.escape(os.strerror(errno.ENOSPC)),
            re.escape(os.strerror(errno.EDQUOT)),
            r"on disk, and .* free",
            r"disk .*is full",
        ),
        "See what can go: runner store gc, runner cache. RUNNER_STORE and HF_HOME move what is"
        " kept to another disk; store.keep=results keeps less.",
        ("keep_checkpoints",),
    ),
    Cause(
        "the repository is gated",
        _signs(r"\bgated\b"),
        "Ask for access on the repository's page with your browser, then: hf auth login",
        ("repo",),
    ),
    Cause(
        "a token is missing, or may not do this",
        _signs(
            r"\(40[13]\)",
            r"40[13] (Client|Unauth|Forbid)",
            r"not logged in",
            r"your (token|account)",
        ),
        "See who you are: hf auth whoami; then hf auth login, or set HF_TOKEN to a token that"
        " may read the repository.",
        ("repo",),
    ),
    Cause(
        "the loss is no number, or explodes",
        _signs(
            r"\bis -?inf\b",
            r"loss explodes",
            r"not finite",
            r"probability tensor contains",
            r"\bnan\b",
        ),
        "If the rows that are named are sound, lower adapt.learning_rate or lengthen"
        " adapt.warmup_steps; float16 overflows where bfloat16 does not"
        " (load.dtype=bfloat16).",
        ("learning_rate", "warmup_steps", "warmup_ratio", "precision", "max_grad_norm", "dtype"),
    ),
    Cause(
        "the chat template and the data do not fit",
        _signs(r"\btemplate\b", r"jinja2", r"\bthe audit\b", r"is trained in"),
        "See what is trained: runner show RECIPE process --rows 3. process.template takes another"
        " template; process.train_on says which answers count.",
        ("template", "train_on", "shape", "columns"),
    ),
    Cause(
        "a library is missing",
        _signs(r"ModuleNotFoundError", r"No module named", r"pip install", r"ImportError"),
        "Install what is named; `runner doctor` says what each extra would enable.",
        ("attention", "quantization", "method", "track"),
    ),
    Cause(
        "the network, or the host at its other end, does not answer",
        _signs(
            r"cannot be (reached|resolved)",
            r"did not answer",
            r"breaks off",
            r"Connection(Error|Reset|Refused)?\b",
            r"\btimed? ?out\b",
            r"\bproxy\b",
            r"trouble of its own",
            r"\boffline\b",
            r"may not be used",
            r"certificate",
        ),
        "See what can be reached: runner doctor. What was fetched so far is kept; on a machine"
        " without network, use a bundle: runner bundle --help",
        ("repo", "url", "wheel"),
    ),
    Cause(
        "a file or folder may not be read or written",
        _signs(
            r"PermissionError",
            re.escape(os.strerror(errno.EACCES)),
            re.escape(os.strerror(errno.EROFS)),
            r"is left alone",
        ),
        "See who owns it: ls -ld FOLDER. RUNNER_STORE, HF_HOME and save.to name other folders.",
        ("to", "overwrite", "path"),
    ),
    Cause(
        "a checkpoint cannot be gone on with",
        _signs(r"\bcheckpoint\b"),
        "Begin the step anew: add --fresh STEP to the command.",
    ),
    Cause(
        "the GPU, its driver and torch do not fit",
        _signs(
            r"CUDA error",
            r"CUDA driver",
            r"no kernel image",
            r"device-side assert",
            r"\bNCCL\b",
            r"libcuda",
        ),
        "See the driver and what torch was built for: runner doctor. CUDA_VISIBLE_DEVICES="
        ' "" runs without the GPU.',
        ("devices", "device_map"),
    ),
)


def of(error: BaseException, log: Iterable[str] = ()) -> list[Cause]:
    """The causes that an error speaks of: first its own words, then those of what led to it.

    The lines of a log count only where no error says anything, and never beside a StepError, which
    says itself what is wrong: libraries print much that harms nobody.
    """
    texts = [f"{type(each).__name__}: {each}" for each in chain(error)]
    found = [cause for text in texts for cause in CAUSES if cause.signs.search(text)]
    if not found and not isinstance(error, StepError):
        found = [cause for cause in CAUSES for line in log if cause.signs.search(line)]
    return list(dict.fromkeys(found))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on to the first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        hidden = found.__suppress_context__
        found = found.__cause__ or (None if hidden else found.__context__)
