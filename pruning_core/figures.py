"""One number that says how good a model still is, on labelled or unlabelled data.

- `accuracy`: share of the samples whose highest logit is their label
- `loss`: mean loss over the samples
- `change`: mean squared change of the outputs against the original's, as a share of the original outputs' variance
- `kl`: mean Kullback-Leibler divergence (nats) of the class probabilities from the original's

`auto` takes accuracy where there are whole-number labels [N] and the output is one tensor [N, classes], the loss for
other labels, and the change without labels: nothing in an unlabelled run says that outputs are logits, so `kl` is only
taken where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core import tree
from pruning_core.calibration import Batch, Calibration, Loss
from pruning_core.errors import ModelError, SpecError, nearest
from pruning_core.trace import call_model, quiet_kernels
from pruning_core.writes import Writes

FIGURES = ("accuracy", "loss", "change", "kl")
WITH_LABELS = ("accuracy", "loss")


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """Takes one figure of any model that answers like the original, always on the same data, batch by batch."""

    figure: str
    data: Calibration
    original: nn.Module  # in evaluation mode
    writes: Writes  # by the original's forward
    spread: tuple[float, ...] = ()  # of each tensor of the original's outputs, summed over the data; for `change`

    @classmethod
    def of(cls, figure: str, data: Calibration, original: nn.Module, writes: Writes, loss: Loss | None) -> Meter:
        """`loss` replaces that of the data, and makes `auto` the loss.

        Raises: SpecError for an unknown figure, and where the data or the outputs do not suit it.
        """
        if figure not in ("auto", *FIGURES):
            raise SpecError(f"figure {figure!r} is unknown", "figure", nearest(figure, ("auto", *FIGURES)))
        if loss is not None:
            data = replace(data, loss=loss)
        first = next(iter(data))
        outputs = answers(original, first, writes)
        one = outputs[0] if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1 else None
        is_classifier = one is not None and _are_classes(first.target, one)
        if figure == "auto":
            figure = "change" if not data.labelled else "accuracy" if is_classifier and loss is None else "loss"
        if figure in WITH_LABELS and not data.labelled:
            fix = "pass Calibration(batches, labelled=True), or figure='change'"
            raise SpecError(f"figure {figure!r} needs labels and there are none", "figure", fix)
        if (figure == "accuracy" and not is_classifier) or (figure == "kl" and one is None):
            shapes = ", ".join(str(list(o.shape)) for o in outputs)
            fix = "use figure='loss' or 'change'" if data.labelled else "use figure='change'"
            raise SpecError(f"figure {figure!r} needs class logits [N, classes]; the model answers {shapes}", "figure", fix)
        return cls(figure, data, original, writes, tuple(_spread(original, data, writes)) if figure == "change" else ())

    def drop(self, figure: float, baseline: float) -> float:
        """How much worse than the original; below zero where it is better."""
        return baseline - figure if self.figure == "accuracy" else figure - baseline

    def __call__(self, model: nn.Module) -> float:
        """The figure of a model in evaluation mode; NaN or infinite where its answers are."""
        total, samples = 0.0, 0
        for batch in self.data:
            total += self._batch(model, batch) * (1 if self.figure == "change" else len(batch))
            samples += len(batch)
        return total if self.figure == "change" else total / samples

    def _batch(self, model: nn.Module, batch: Batch) -> float:
        """Mean over the batch; the batch's share of the whole for `change`."""
        if self.figure == "loss":
            with quiet_kernels(), torch.no_grad():
                return float(self.data.loss_of(_run(model, batch, self.writes), batch.target))
        outputs = answers(model, batch, self.writes)
        if self.figure == "accuracy":
            assert isinstance(batch.target, Tensor)
            if not bool(outputs[0].isfinite().all()):
                return float("nan")  # the highest of such logits means nothing
            return float((outputs[0].argmax(dim=1) == batch.target.to(outputs[0].device)).double().mean())
        wanted = answers(self.original, batch, self.writes)
        if self.figure == "kl":
            ours, theirs = (F.log_softmax(o[0].double(), dim=1) for o in (outputs, wanted))
            return float(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))
        parts = [
            float((y.double() - z.double()).square().sum()) / spread
            for y, z, spread in zip(outputs, wanted, self.spread, strict=True)
        ]
        return sum(parts) / len(parts)


def answers(model: nn.Module, batch: Batch, writes: Writes) -> list[Tensor]:
    """The floating tensors of the outputs. Raises: ModelError where there are none."""
    with quiet_kernels(), torch.no_grad():
        outputs = _run(model, batch, writes)
    found = [t for t in tree.held(outputs) if t.is_floating_point()]
    if not found:
        raise ModelError(
            "the model returns no floating tensor", type(model).__name__, "pass a model whose outputs are scores"
        )
    return found


def _run(model: nn.Module, batch: Batch, writes: Writes) -> object:
    return call_model(writes.twin(model) if writes.tensors else model, writes.given(batch.inputs))


def _are_classes(target: object, logits: Tensor) -> bool:
    return isinstance(target, Tensor) and not target.is_floating_point() and target.shape == logits.shape[:1]


def _spread(original: nn.Module, data: Calibration, writes: Writes) -> Iterator[float]:
    """Sum of squares of each output tensor about its own mean, over all samples; above zero."""
    sums: list[list[float]] = []
    for batch in data:
        outputs = [t.double() for t in answers(original, batch, writes)]
        parts = [[float(t.sum()), float(t.square().sum()), float(t.numel())] for t in outputs]
        sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(sums, parts, strict=True)] if sums else parts
    for total, squares, count in sums:
        yield max(squares - total**2 / max(count, 1), 1e-12 * squares, 1e-30)
