"""Seeds by the step: the random numbers of a step depend on nothing that happened before it."""

import hashlib


def seed(base: int, step: int, process: int) -> None:
    """Seed python's, numpy's and torch's random numbers for a step of one process.

    The seed is a digest of the three, so that neighbouring steps have nothing in common.
    """
    import random

    import numpy as np
    import torch

    digest = hashlib.blake2b(f"{base} {step} {process}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1  # torch takes 63 bits
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
