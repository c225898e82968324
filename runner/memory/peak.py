"""A step of training or of answering, on tensors without numbers, and the most that it held."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from runner.memory import heap
from runner.memory.heap import Heap


@dataclass
class Watched:
    """Bytes of the tensors that are alive: now, and at the most.

    `heaps` have had those that are made inside, and tell what these take with the holes between.
    """

    now: int = 0
    most: int = 0
    heaps: list[Heap] = field(default_factory=list)

    @property
    def grown(self) -> int:
        """The most that a heap has grown to."""
        return max(each.size for each in self.heaps)

    def add(self, size: int) -> Callable[[], None]:
        """One more tensor; gives what is to be called when it is gone."""
        self.now += size
        self.most = max(self.most, self.now)
        blocks = [(each, each.take(size)) for each in self.heaps]

        def drop() -> None:
            self.now -= size
            for each, block in blocks:
                each.give(*block)

        return drop


@contextmanager
def watched(model: Any) -> Iterator[Watched]:
    """Have everything inside run on fake tensors, and count what it holds.

    The model comes from the meta device and gets fake weights, so that its operations are those
    of the CPU (its kernels choose by shape and format), and no memory is taken. Each storage
    counts for as long as it is alive.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    held, alive = Watched(), dict[int, Callable[[], None]]()

    def see(tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in alive:
            alive[storage._cdata] = held.add(storage.nbytes())
            weakref.finalize(storage, drop, storage._cdata)

    def drop(key: int) -> None:
        alive.pop(key)()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    see(each)
            return found

    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_weights(model)
        with Watch():  # type: ignore[no-untyped-call]
            for each in (*model.parameters(), *model.buffers()):
                see(each)
            held.heaps = [Heap(number) for number in range(heap.TRIES)]
            yield held


def _give_weights(model: Any) -> None:
    """Replace every tensor of the meta device by a fake one of the CPU, tied ones by the same."""
    import torch

    made: dict[int, Any] = {}

    def fake(value: Any) -> Any:
        if id(value) not in made:
            empty = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            is_weight = isinstance(value, torch.nn.Parameter)
            made[id(value)] = torch.nn.Parameter(empty, value.requires_grad) if is_weight else empty
        return made[id(value)]

    for module in model.modules():
        tables: tuple[Mapping[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            table |= {name: fake(value) for name, value in table.items() if value is not None}  # type: ignore[operator]
