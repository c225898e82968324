"""The process that runs vLLM: `python -m runner.answering.vllm_worker FD`, asked on stdin.

The first line is what to open, every other one a batch. It answers on the file descriptor FD, a
line for a line; what libraries print goes into its log.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner import child, hardware

BLOCK = 128
"""Tokens whose keys and values vLLM keeps together, on a CPU."""

Answer = tuple[Sequence[int], Sequence[float] | None]


def main() -> None:
    """Open the model, then answer until nobody asks any more."""
    with open(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as said:
        job = json.loads(sys.stdin.readline())
        child.serve(job["parent"])
        hardware.prepare()
        opened: list[Answering] = []
        said.write(_answered(lambda: _open(job, opened)))
        for line in sys.stdin:
            said.write(_answered(lambda: opened[0].answers(json.loads(line))))  # noqa: B023
        said.flush()
        sys.stdout.flush()
        os._exit(0)  # threads that a library has left behind do not keep it


def _answered(work: Callable[[], Any]) -> str:
    """The line that says what came of it."""
    try:
        return json.dumps({"answer": work()}) + "\n"
    except Exception as error:
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n"


def _open(job: Mapping[str, Any], opened: list["Answering"]) -> str:
    """Which release answers, and on what."""
    import vllm
    from vllm.platforms import current_platform

    opened.append(Answering(job))
    return f"vLLM {vllm.__version__} on {current_platform.device_type}"


class Answering:
    """One model that answers batches by one setting."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        from vllm import LLM

        self._job = job
        self._model = LLM(
            model=job["folder"],
            dtype=job["dtype"],
            trust_remote_code=job["trust"],
            load_format="safetensors",
            generation_config="vllm",  # what counts is the recipe, and not the model's own settings
            max_model_len=job["longest"],
            max_num_seqs=job["rows"],
            tensor_parallel_size=job["gpus"],
            structured_outputs_config={"backend": "guidance"},
            **_memory(job),
        )

    def answers(self, asked: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Tokens, and the log-probability of each if they are wanted, in the order of the rows."""
        self._model.reset_prefix_cache()  # what is computed must not depend on other batches
        prompts = [{"prompt_token_ids": each["ids"]} for each in asked]
        found = self._model.generate(prompts, [self._how(each) for each in asked], use_tqdm=False)
        return [_taken(each.outputs[0]) for each in found]

    def _how(self, row: Mapping[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        constraint = self._job["constraint"]
        return SamplingParams(
            **self._job["sampling"],
            seed=row["seed"],
            max_tokens=row["room"],
            ignore_eos=True,  # the tokens that end an answer are said
            detokenize=bool(self._job["sampling"]["stop"]),
            structured_outputs=StructuredOutputsParams(**constraint) if constraint else None,
        )


def _memory(job: Mapping[str, Any]) -> dict[str, Any]:
    """How much vLLM may take; on a CPU for keys and values alone, and no more than rows need."""
    from vllm.platforms import current_platform

    share = job["memory_share"]
    if current_platform.is_cpu():
        blocks = job["rows"] * (-(-job["longest"] // BLOCK) + 1)
        free = hardware.free_memory("cpu") or blocks * BLOCK * job["cached_bytes"]
        wanted = min(int(share * free), blocks * BLOCK * job["cached_bytes"])
        return {"kv_cache_memory_bytes": wanted, "enforce_eager": True}  # compiling takes minutes
    gpu, free = hardware.gpus()[0], hardware.free_memory("cuda:0")
    return {"gpu_memory_utilization": share * (free or gpu.memory) / gpu.memory}


def _taken(output: Any) -> Answer:
    ids = list(output.token_ids)
    if output.logprobs is None:
        return ids, None
    return ids, [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)]


if __name__ == "__main__":
    main()
