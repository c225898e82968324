"""How fast bytes come and how long it will take; and pauses that a signal ends."""

import time

from runner.stage import Context

TICK = 0.1
"""Seconds between two looks at whether to stop."""


def pace(left: int, rate: float) -> dict[str, str]:
    """Megabytes a second and the minutes and seconds that are left, where bytes come at all."""
    if rate <= 0:
        return {}
    seconds = round(left / rate)
    return {"MB_per_second": f"{rate / 1e6:.1f}", "left": f"{seconds // 60}:{seconds % 60:02}"}


def rest(context: Context, seconds: float) -> None:
    """Wait, unless a signal asks to stop."""
    end = time.monotonic() + seconds
    context.stop_here()
    while (left := end - time.monotonic()) > 0:
        context.stop_here()
        time.sleep(min(left, TICK))
