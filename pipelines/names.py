"""Did you mean ...?"""

import difflib
from collections.abc import Iterable


def nearest_name(given: str, known: Iterable[str]) -> str | None:
    nearest = difflib.get_close_matches(given, sorted(known), n=1, cutoff=0.5)
    return nearest[0] if nearest else None


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names, or that there are none."""
    names = sorted(known)
    nearest = nearest_name(given, names)
    if nearest is not None:
        return f"did you mean {nearest!r}?"
    return f"known: {', '.join(names)}" if names else "there are none"
