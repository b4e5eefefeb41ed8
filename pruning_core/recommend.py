"""What would be cut, before anything is: a table of layers and ratios to look at, to edit and to hand back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from pruning_core.api import predicted_latency, scorer_of
from pruning_core.calibration import Calibration
from pruning_core.cost import Cost, cost_of
from pruning_core.coupling.groups import ChannelGroup, layer_of
from pruning_core.coupling.parts import told_apart
from pruning_core.draft import Draft
from pruning_core.errors import SpecError
from pruning_core.inputs import ExampleInputs
from pruning_core.latency_table import LatencyTable
from pruning_core.modes import in_default_modes
from pruning_core.planner import make_plan, throwaway
from pruning_core.report import layer_rows
from pruning_core.scoring import Scorer
from pruning_core.select import filtered, scored_in
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject, study
from pruning_core.tables import table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedCut:
    """One group of layers that are cut together. Widths are positions of the layers' output axes."""

    name: str  # what names the group in `PruningSpec.ratios`
    layers: tuple[str, ...]  # all layers whose output width this is
    ratio: float
    width: int
    kept: int
    score_min: float | None  # None where nothing was scored: it cannot be cut
    score_max: float | None
    macs_share: float  # of the layers that produce these channels, of the whole model
    reason: str = ""  # why it is left alone, at this request or at any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Layer -> ratio. `spec()` asks for exactly this, in one step; `edited({...})` for other ratios."""

    rows: tuple[RecommendedCut, ...]
    asked: PruningSpec  # with every `auto` decided
    before: Cost
    after: Cost  # with these ratios
    predicted_ms: tuple[float, float] | None = None  # before and after, by the latency table, where one was used

    @property
    def ratios(self) -> dict[str, float]:
        """One entry per group that can be cut, by the name of its first layer."""
        return {row.name: row.ratio for row in self.rows if row.score_min is not None}

    def spec(self) -> PruningSpec:
        """The request for exactly these ratios, scored in the same way."""
        return self.edited(self.ratios)

    def edited(self, ratios: dict[str, float]) -> PruningSpec:
        """The same with other ratios. Raises: SpecError for one that makes no sense."""
        return dataclasses.replace(self.asked, allocator="per_layer", budget={}, ratios=ratios, steps=1)

    def to_dict(self) -> dict[str, Any]:
        """The options in which the request differs from the defaults, and the ratios: what `PruningSpec` takes."""
        usual, options = PruningSpec().to_dict(), self.spec().to_dict()
        own = {k: v for k, v in options.items() if k not in ("ratio", "compensation") and v != usual[k]}
        return {**{k: v for k, v in own.items() if k != "ratios"}, "ratios": self.ratios}

    def to_pandas(self) -> pd.DataFrame:
        import pandas as pd

        columns = [f.name for f in dataclasses.fields(RecommendedCut)]
        return pd.DataFrame([[getattr(row, c) for c in columns] for row in self.rows], columns=columns)

    def __str__(self) -> str:
        head = ("layers", "ratio", "width", "kept", "scores", "MACs", "why it is left alone")
        rows = [
            (
                ", ".join(r.layers) or r.name,
                f"{r.ratio:.3f}",
                str(r.width),
                str(r.kept),
                "" if r.score_min is None else f"{r.score_min:.3g} .. {r.score_max:.3g}",
                f"{r.macs_share:.1%}",
                r.reason,
            )
            for r in self.rows
        ]
        return f"{table(head, rows)}\n{self.total}"

    @property
    def total(self) -> str:
        """What the ratios come to, in one line."""
        names = {"MACs": "macs", "parameters": "params"}
        found = [_change(label, getattr(self.before, key), getattr(self.after, key)) for label, key in names.items()]
        if self.predicted_ms is not None:
            found.append("{:.3f} -> {:.3f} ms by the latency table".format(*self.predicted_ms))
        return "; ".join(found)


def _change(label: str, before: int, after: int) -> str:
    factor = f" ({before / after:.2f}x)" if after else ""
    return f"{label} {before:,} -> {after:,}{factor}"


@in_default_modes
def recommend(
    model: nn.Module,
    example_inputs: object,
    spec: PruningSpec,
    calibration: object = None,
    *,
    latencies: LatencyTable | None = None,
) -> Recommendation:
    """How `spec` would spread what is to go over the layers, in one step. Nothing is applied, the model is not changed.

    Edit the ratios and hand them back: `PruningSpec(allocator="per_layer", ratios=..., criterion=...)`.
    Raises: SpecError, ModelError, VerifyError, as `plan` does.
    """
    if spec.index:
        raise SpecError("index says already which channels go", "index", "leave it out, or use plan() to see what it does")
    data = Calibration.of(calibration, model)
    subject = study(model, ExampleInputs.of(example_inputs))
    spec = spec.resolved(data is not None)
    scorer = scorer_of(subject, spec, data, latencies)
    draft = make_plan(subject, spec, scorer)[1]
    pruned = throwaway(subject, draft.slices, draft.mends, draft.rescales)
    return Recommendation(
        rows=tuple(_rows(subject, draft, scorer, spec)),
        asked=spec,
        before=cost_of(model, subject.trace),
        after=cost_of(pruned, draft.retraced),
        predicted_ms=predicted_latency(draft, scorer),
    )


def _rows(subject: Subject, draft: Draft, scorer: Scorer, spec: PruningSpec) -> list[RecommendedCut]:
    shares = _macs_shares(subject, draft)
    prunable = [group for group in filtered(draft.groups, spec)[0] if group.name not in draft.left]
    apart = told_apart(prunable, draft.analysis)
    prunable = [apart.get(group.name, group) for group in prunable]
    scores = {scored.name: scored.scores for scored in scored_in(prunable, scorer, spec, draft.analysis)}
    rows = []
    for group in draft.groups:
        if not group.layers and group.name not in draft.kept:  # nothing to say of an input that no layer makes
            continue
        kept = len(draft.kept.get(group.name, range(group.channels)))
        mine = scores.get(group.name)
        rows.append(
            RecommendedCut(
                name=_name(group, draft.groups),
                layers=group.layers,
                ratio=float(f"{1 - kept / group.channels:.15g}"),
                width=group.channels * group.positions,
                kept=kept * group.positions,
                score_min=None if mine is None else float(mine.min()),
                score_max=None if mine is None else float(mine.max()),
                macs_share=shares[group.name],
                reason=draft.left.get(group.name) or draft.whole.get(group.name, ""),
            )
        )
    return rows


def _name(group: ChannelGroup, groups: Sequence[ChannelGroup]) -> str:
    """Its first layer, unless another group has a part of that layer."""
    alone = [layer for layer in group.layers if not any(layer in g.layers for g in groups if g is not group)]
    return alone[0] if alone else group.name


def _macs_shares(subject: Subject, draft: Draft) -> dict[str, float]:
    """Group -> the share of the model's MACs that is spent on computing its channels; a layer's are shared by width."""
    macs = {row.name: row.macs for row in layer_rows(subject.model, subject.trace, draft.groups)}
    total = sum(macs.values()) or 1
    widths: dict[tuple[str, str], int] = {}  # (layer, group) -> positions; a tied weight may make channels on two axes
    for group in draft.groups:
        for member in group.members:
            layer = layer_of(member.tensor)
            if member.produces and layer in macs:
                mine = int((member.channel_of >= 0).sum())
                widths[layer, group.name] = max(mine, widths.get((layer, group.name), 0))
    whole: dict[str, int] = {}
    for (layer, _), width in widths.items():
        whole[layer] = whole.get(layer, 0) + width
    found = dict.fromkeys((group.name for group in draft.groups), 0.0)
    for (layer, name), width in widths.items():
        found[name] += macs[layer] / total * width / whole[layer]
    return found
