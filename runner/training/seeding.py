"""Seeds by the step: the random numbers of a step depend on nothing that happened before it."""

import hashlib


def seed(base: int, step: int, process: int, piece: int = 0) -> None:
    """Seed python's, numpy's and torch's random numbers for a step (or its piece) of one process.

    The seed is a digest of the four, so that neighbouring steps have nothing in common.
    """
    import random

    import numpy as np
    import torch

    digest = hashlib.blake2b(f"{base} {step} {process} {piece}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1  # torch takes 63 bits
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
