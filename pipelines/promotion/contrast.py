"""Two models on the same samples: how often they answer alike, and how much the second may have lost."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from pipelines.data import Split

BATCH = 256
Z95 = 1.959964  # of a two-sided interval at 95%


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Of a candidate against its source; fractions of the samples."""

    samples: int
    agreement: float  # the same class, right or wrong
    drop: float  # accuracy of the source less that of the candidate
    drop_lower: float
    drop_upper: float


def contrast(source: nn.Module, candidate: nn.Module, split: Split) -> Contrast:
    """Both answer logits [N, classes]. The interval is that of `interval`, at 95%."""
    alike = lost = won = 0
    source.eval()
    candidate.eval()
    with torch.inference_mode():
        for x, y in split.batches(BATCH):
            before, after = source(x).argmax(1), candidate(x).argmax(1)
            alike += int((before == after).sum())
            lost += int(((before == y) & (after != y)).sum())
            won += int(((before != y) & (after == y)).sum())
    count = len(split)
    lower, upper = interval(lost, won, count)
    return Contrast(samples=count, agreement=alike / count, drop=(lost - won) / count, drop_lower=lower, drop_upper=upper)


def interval(lost: int, won: int, samples: int) -> tuple[float, float]:
    """95% interval of the difference of two paired proportions; `lost` and `won` count the samples where they differ.

    Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based on paired data,
    2012: it keeps its level with few samples and with none that differ, where the plain interval has no width.
    """
    p, q, n = (lost + 1) / (samples + 2), (won + 1) / (samples + 2), samples + 2
    half = Z95 * math.sqrt((p + q - (p - q) ** 2) / n)
    return max(-1.0, p - q - half), min(1.0, p - q + half)
