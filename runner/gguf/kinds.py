"""The table of kinds of GGUF file: how many bits, and who makes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from runner import extras
from runner.errors import did_you_mean, listing

EXTRA = "gguf"
"""What of pyproject.toml brings llama.cpp."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind, by the names that the gguf library gives.

    file_type  what the file says of itself (`gguf.LlamaFileType`)
    matrices   the form of matrices (`gguf.GGMLQuantizationType`); "" where llama.cpp chooses
    ends       the form of the first and the last matrix, which suffer most from few bits
    """

    file_type: str
    matrices: str = ""
    ends: str = ""


def _by_llama(file_type: str) -> Kind:
    return Kind(file_type=f"MOSTLY_{file_type}")


KINDS: Mapping[str, Kind] = {
    "f32": Kind(file_type="ALL_F32", matrices="F32", ends="F32"),
    "f16": Kind(file_type="MOSTLY_F16", matrices="F16", ends="F16"),
    "bf16": Kind(file_type="MOSTLY_BF16", matrices="BF16", ends="BF16"),
    "q8_0": Kind(file_type="MOSTLY_Q8_0", matrices="Q8_0", ends="Q8_0"),
    "q5_1": Kind(file_type="MOSTLY_Q5_1", matrices="Q5_1", ends="Q8_0"),
    "q5_0": Kind(file_type="MOSTLY_Q5_0", matrices="Q5_0", ends="Q8_0"),
    "q4_1": Kind(file_type="MOSTLY_Q4_1", matrices="Q4_1", ends="Q8_0"),
    "q4_0": Kind(file_type="MOSTLY_Q4_0", matrices="Q4_0", ends="Q8_0"),
    "q6_k": _by_llama("Q6_K"),
    "q5_k_m": _by_llama("Q5_K_M"),
    "q5_k_s": _by_llama("Q5_K_S"),
    "q4_k_m": _by_llama("Q4_K_M"),
    "q4_k_s": _by_llama("Q4_K_S"),
    "q3_k_l": _by_llama("Q3_K_L"),
    "q3_k_m": _by_llama("Q3_K_M"),
    "q3_k_s": _by_llama("Q3_K_S"),
    "q2_k": _by_llama("Q2_K"),
}


def problem(kind: str) -> str | None:
    """Why a kind cannot be made here, known before any work: its name, or a missing library."""
    if kind not in KINDS:
        guess = did_you_mean(kind, KINDS)
        return f'there is no GGUF kind "{kind}". {guess} There are {listing(list(KINDS))}.'
    if not KINDS[kind].matrices and (lacking := extras.missing(EXTRA)):
        return f"{kind} is made by llama.cpp: {lacking}"
    return None
