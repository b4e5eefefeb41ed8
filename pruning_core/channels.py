"""Pruning by channel index, as a person types it: "105, 8, 9, 11-13"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pruning_core.errors import SpecError

LIMIT = 2**24  # no axis is that long; a range is written out before the width of its layer is known
_TOKEN = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def parse_channels(text: str | int | Sequence[int], where: str) -> tuple[int, ...]:
    """Sorted channel numbers from commas, spaces and inclusive ranges; any order, duplicates collapse.

    Raises: SpecError that names the token and its column.
    """
    if not isinstance(text, str):
        for item in text if isinstance(text, Iterable) else (text,):
            if not isinstance(item, int) or isinstance(item, bool) or item < 0:
                raise SpecError(f"{item!r} is not a channel number", where, "use whole numbers from 0")
        return tuple(sorted(set(text))) if isinstance(text, Iterable) else (text,)
    found: set[int] = set()
    at = 0
    while at < len(text):
        if text[at] in ", \t\n":
            at += 1
            continue
        match = _TOKEN.match(text, at)
        end = match.end() if match else at
        token = re.split(r"[,\s]", text[at:], maxsplit=1)[0]
        if match is None or (end < len(text) and text[end] not in ", \t\n"):
            fix = 'write numbers and ranges, e.g. "105, 8, 9, 11-13"'
            raise SpecError(f"{token!r} at column {at + 1} is no channel number or range", where, fix)
        if any(len(number) > len(str(LIMIT)) or int(number) >= LIMIT for number in match.groups(default="0")):
            what = f"{match[0][:40]!r} at column {at + 1} is out of range"
            raise SpecError(what, where, f"no layer has so many channels: stay below {LIMIT}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise SpecError(f"{match[0]!r} at column {at + 1} runs backwards", where, f"write {last}-{first}")
        found.update(range(first, last + 1))
        at = end
    return tuple(sorted(found))


def to_ranges(numbers: tuple[int, ...] | list[int]) -> str:
    """(0, 1, 2, 5) -> "0-2,5"."""
    parts: list[str] = []
    start = previous = None
    for n in [*numbers, None]:
        if start is not None and (n is None or n != previous + 1):  # type: ignore[operator]
            parts.append(f"{start}" if start == previous else f"{start}-{previous}")
            start = n
        elif start is None:
            start = n
        previous = n
    return ",".join(parts)


def from_ranges(text: str) -> tuple[int, ...]:
    """ "0-2,5" -> (0, 1, 2, 5)."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
