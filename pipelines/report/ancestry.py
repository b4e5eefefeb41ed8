"""The chain of a version, for a terminal and for other programs."""

import dataclasses
import json
from collections.abc import Sequence

from pipelines import lineage
from pipelines.origin import Link

SHOWN = (lineage.LATENCY_P50, lineage.PARAMS, lineage.MACS, lineage.SIZE)


def ancestry_text(links: Sequence[Link]) -> str:
    """A block per version, the original first."""
    return "\n\n".join(
        "\n".join([_heading(n, link), *(f"    {line}" for line in _lines(link))]) for n, link in enumerate(links)
    )


def ancestry_json(links: Sequence[Link]) -> str:
    return json.dumps([dataclasses.asdict(link) for link in links], indent=1, ensure_ascii=False)


def _heading(number: int, link: Link) -> str:
    if number == 0:
        return f"{link.uri}" + (f"  copied from {link.copied_from}" if link.copied_from else "")
    how = (
        "a copy"
        if link.is_copy
        else " ".join(filter(None, ["pruned by", link.method, f"({link.asked})" if link.asked else ""]))
    )
    return f"-> {link.uri}  {how}"


def _lines(link: Link) -> list[str]:
    lines = [link.note] if link.note else []
    if link.rejected:
        lines.append(f"rejected: {link.rejected}")
    if link.plan_digest or link.weights_digest:
        digests = (("plan", link.plan_digest), ("weights", link.weights_digest))
        lines.append("  ".join(f"{what} {digest[:16]}" for what, digest in digests if digest))
    if link.data_digest:
        lines.append(f"data {link.dataset or ''} {link.data_digest}".replace("  ", " "))
    if numbers := _numbers(link):
        lines.append("  ".join(f"{name} {value:,.6g}" for name, value in numbers.items()))
    return lines + [decision.sentence for decision in link.decisions]


def _numbers(link: Link) -> dict[str, float]:
    """The primary metric, by what we log beside it, and what the model costs."""
    suffix = lineage.AFTER_CUT.format("")
    primary = [name.removesuffix(suffix) for name in link.metrics if name.endswith(suffix)] or ["accuracy"]
    return {name: link.metrics[name] for name in (*primary, *SHOWN) if name in link.metrics}
