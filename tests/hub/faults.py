"""What can go wrong on the way, on demand."""

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One kind of trouble, for the next `times` requests whose "METHOD path" has `pattern`."""

    pattern: str = ""
    times: float = 1  # math.inf: for ever
    skip: int = 0  # so many matching requests are answered well before
    status: int | None = None  # answered instead
    headers: dict[str, str] = field(default_factory=dict)  # added, such as Retry-After
    delay: float = 0  # seconds before the answer
    hang_up: bool = False  # the connection is closed without an answer
    drop_after: int | None = None  # bytes of the body, then the connection is closed
    rate: float | None = None  # bytes per second
    ignore_range: bool = False  # 200 and the whole file to one who asks for a part
    flip: int | None = None  # the byte at this place of the file is another
    cut: int = 0  # bytes missing at the end, and in Content-Length


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Have this go wrong too, after what was added before."""
        with self._lock:
            self._waiting.append(fault)

    def take(self, request: str) -> Fault:
        """What goes wrong with this request: the first that matches, or a fault of no effect."""
        with self._lock:
            for fault in self._waiting:
                if fault.times > 0 and re.search(fault.pattern, request):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return Fault()

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._waiting.clear()
