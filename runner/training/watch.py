"""What is added to every Trainer: whole effective batches, a look at each step, safe states."""


def watched(kind: type) -> type:
    """A subclass of a Trainer (of transformers or trl) whose steps are watched."""
    return type(f"Watched{kind.__name__}", (kind,), {})
