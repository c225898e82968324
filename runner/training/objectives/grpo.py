"""Group relative policy optimization (arXiv:2402.03300): what it writes is scored by functions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner import functions
from runner.errors import StepError
from runner.options import Fault
from runner.products import COLUMNS, IGNORED
from runner.training.objectives import bare, dpo, rewards, rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.TOKENS
LOSSES = (
    "grpo",  # arXiv:2402.03300
    "bnpo",  # arXiv:2505.23585
    "dr_grpo",  # arXiv:2503.20783
    "dapo",  # arXiv:2503.14476
)
OPTIONS: Mapping[str, Any] = {
    "loss": "grpo",
    "beta": 0.0,
    "rewards": (),
    "generations": 8,
    "max_new_tokens": 128,
    "temperature": 1.0,
}


def check(options: Options) -> list[Fault]:
    """Functions that are there, and a batch of whole groups."""
    faults = dpo.wrong_loss("grpo", options.loss or OPTIONS["loss"], LOSSES)
    faults += dpo.wrong_dropout(options)
    if not options.rewards:
        guess = "rewards: [{path: reward.py:score}]"
        faults.append(
            Fault(("rewards",), "grpo needs a function that scores what is written.", guess)
        )
    for index, each in enumerate(options.rewards):
        where = ("rewards", str(index))
        if each.source is not None:
            faults.append(Fault((*where, "source"), "source is found, and not given."))
        if found := functions.fault(each.path):
            faults.append(Fault((*where, "path"), *found))
    generations = options.generations or OPTIONS["generations"]
    if (size := options.effective_batch_size) % generations:
        fact = f"a batch of {size} rows holds no whole groups of {generations} answers."
        sizes = f"{generations}, {2 * generations}, ..."
        guess = f"Set effective_batch_size to {sizes}, or generations lower."
        faults.append(Fault(("generations",), fact, guess))
    return faults


def resolve(options: Options) -> Options:
    """With what the files of the functions say now."""
    found = tuple(
        replace(
            each, source=f"{functions.parted(each.path)[1]} {functions.source_digest(each.path)}"
        )
        for each in options.rewards
    )
    return replace(options, rewards=found)


def trainer(given: Given) -> Any:
    """trl's GRPOTrainer on our tokens.

    It writes anew for every step, so that a checkpoint never falls between writing and learning.
    """
    from trl import GRPOConfig

    if given.options.beta and not hasattr(given.model, "peft_config"):
        raise StepError(
            "a beta above 0 would need a second copy of a model that is trained whole.",
            "Set adapt.beta=0, or train an adapter.",
        )
    tokens = given.dataset.train.select_columns(list(COLUMNS[ROWS]))
    config = bare.build(
        GRPOConfig,
        {
            **bare.NEUTRAL | dict(given.arguments) | _pieces(given.arguments),
            "remove_unused_columns": False,
            "disable_dropout": True,
            "include_num_input_tokens_seen": "no",  # it counts those that it writes by itself
            "loss_type": given.options.loss,
            "scale_rewards": "none" if given.options.loss == "dr_grpo" else "group",
            "beta": given.options.beta,
            "num_generations": given.options.generations,
            "max_completion_length": given.options.max_new_tokens,
            "temperature": given.options.temperature,
            "reward_weights": [each.weight for each in given.options.rewards],
        },
    )
    _enough(tokens, config)
    settings = {
        "model": given.model,
        "args": config,
        "train_dataset": prompts(tokens, given.tokenizer),
        "reward_funcs": [rewards.scored(each) for each in given.options.rewards],
        "processing_class": given.tokenizer,
        "callbacks": list(given.callbacks),
    }
    return bare.build(watched(_kind()), settings)


def prompts(tokens: Any, tokenizer: Any) -> Any:
    """Rows with what comes before the first trained tokens, and with these as `expected`.

    StepError where a row begins with a trained token, for there is nothing to go on from.
    """
    import pyarrow.compute

    if len(tokens):
        first = pyarrow.compute.list_element(tokens.with_format("arrow")[:]["labels"], 0)
        if pyarrow.compute.any(pyarrow.compute.not_equal(first, IGNORED)).as_py():
            raise StepError(
                "a row is trained from its first token on, so that nothing is asked in it.",
                "Train answers alone: process.train_on=assistant",
            )

    def asked(batch: Mapping[str, Any]) -> dict[str, Any]:
        parts = [_parted(*row) for row in zip(batch["input_ids"], batch["labels"], strict=True)]
        return {
            "prompt_ids": [ids for ids, _ in parts],
            "prompt": [tokenizer.decode(ids) for ids, _ in parts],
            "expected": [tokenizer.decode(ids, skip_special_tokens=True) for _, ids in parts],
        }

    return tokens.with_transform(asked)


def _parted(ids: Sequence[int], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The tokens before the first trained one, and those trained in a row from there on."""
    begin = next((n for n, label in enumerate(labels) if label != IGNORED), len(labels))
    rest = range(begin, len(labels))
    end = next((n for n in rest if labels[n] == IGNORED), len(labels))
    return list(ids[:begin]), list(ids[begin:end])


def _pieces(arguments: Mapping[str, Any]) -> dict[str, int]:
    """A step in as many pieces as memory asks for, which the size of a batch to score tells."""
    rows = arguments["per_device_train_batch_size"]
    fits = min(rows, arguments.get("per_device_eval_batch_size", rows))
    size = next(size for size in range(fits, 0, -1) if rows % size == 0)
    pieces = arguments.get("gradient_accumulation_steps", 1) * rows // size
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": pieces}


def _enough(tokens: Any, config: Any) -> None:
    """StepError where there are fewer prompts than one step takes."""
    wanted = config.generation_batch_size // config.num_generations
    if len(tokens) < wanted:
        raise StepError(
            f"a step takes {wanted} prompts, and the dataset has {len(tokens)} rows.",
            "Lower adapt.effective_batch_size.",
        )


def _kind() -> type:
    from trl import GRPOTrainer
    from trl.trainer.utils import RepeatSampler

    class Sampler(RepeatSampler):  # type: ignore[misc]  # trl is untyped
        """The order of an epoch by seed and number, whichever epoch the process began with."""

        def set_epoch(self, epoch: int) -> None:
            self.generator.manual_seed(self.seed + epoch)

    class Trainer(bare.Bare, GRPOTrainer):  # type: ignore[misc]  # trl is untyped
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            made = super()._get_train_sampler(dataset)
            made.__class__ = Sampler
            return made

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            self._asked = [row["prompt_ids"] for row in inputs]
            return super()._generate_and_score_completions(inputs)

        def _tokenize_prompts(self, prompts: Any) -> Any:
            return self._asked, None, {}

    return Trainer
