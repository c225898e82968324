"""How fast bytes come and how long it will take, as a run shows it."""


def pace(left: int, rate: float) -> dict[str, str]:
    """Megabytes a second and the minutes and seconds that are left, where bytes come at all."""
    if rate <= 0:
        return {}
    seconds = round(left / rate)
    return {"MB_per_second": f"{rate / 1e6:.1f}", "left": f"{seconds // 60}:{seconds % 60:02}"}
