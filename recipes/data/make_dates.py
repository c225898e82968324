"""Writes dates.jsonl: dates in many spellings, each answered in ISO 8601."""

import datetime
import json
import random
from collections.abc import Callable
from pathlib import Path

ROWS = 480
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    teen = 10 <= number % 100 <= 20
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def month(date: datetime.date) -> str:
    """The month's English name."""
    return MONTHS[date.month - 1]


SPELLINGS: tuple[Callable[[datetime.date], str], ...] = (
    lambda d: f"{month(d)} {d.day}, {d.year}",
    lambda d: f"{d.day} {month(d)} {d.year}",
    lambda d: f"the {ordinal(d.day)} of {month(d)} {d.year}",
    lambda d: f"{month(d)[:3]} {d.day} {d.year}",
    lambda d: f"{d.day}-{month(d)[:3].upper()}-{d.year}",
    lambda d: f"{d.year}, {month(d)} {ordinal(d.day)}",
    lambda d: f"{d.day:02d}.{d.month:02d}.{d.year}",
    lambda d: f"{WEEKDAYS[d.weekday()]}, {d.day} {month(d)} {d.year}",
)


def rows() -> list[dict[str, list[dict[str, str]]]]:
    """Distinct days in random order, the spellings taking turns."""
    days = random.Random(2024).sample(range((LAST - FIRST).days + 1), ROWS)
    dates = [FIRST + datetime.timedelta(days=day) for day in days]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Write as ISO 8601: {spell(date)}"},
                {"role": "assistant", "content": date.isoformat()},
            ]
        }
        for date, spell in zip(dates, SPELLINGS * (ROWS // len(SPELLINGS)), strict=True)
    ]


if __name__ == "__main__":
    target = Path(__file__).with_name("dates.jsonl")
    target.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
