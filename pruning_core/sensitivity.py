"""How much each group of channels matters: every group pruned alone, at a grid of ratios, compensated, and measured.

The model is analysed once, its calibration data is looked at once, and each group's channels are ranked once; a point of
the grid then costs one cut, one compensation and one pass over the evaluation data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from pruning_core.api import scorer_of
from pruning_core.calibration import Calibration, Loss
from pruning_core.compensation import compensate
from pruning_core.cost import cost_of
from pruning_core.coupling.groups import ChannelGroup
from pruning_core.draft import Draft, draft_of
from pruning_core.errors import ModelError, SpecError, nearest
from pruning_core.figures import FIGURES, Meter
from pruning_core.inputs import ExampleInputs
from pruning_core.modes import in_default_modes
from pruning_core.planner import make_plan, try_draft
from pruning_core.reorder import Reorder
from pruning_core.scoring import Scorer
from pruning_core.select import Selection, select
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject, study
from pruning_core.surgery import cut_copy
from pruning_core.tables import table
from pruning_core.trace import real_twin

if TYPE_CHECKING:
    import pandas as pd

RATIOS = (0.25, 0.5, 0.75)
DEFAULT = PruningSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRow:
    """One group pruned alone, at one ratio of the grid."""

    group: str
    layers: tuple[str, ...]  # whose output width the group is
    width: int  # channels before
    ratio: float  # asked for
    kept: int  # channels left, after rounding and floors
    macs_factor: float  # of the whole model: MACs before / after
    figure: float | None  # None: see `reason`
    drop: float | None  # against the uncut model; above zero is worse, whatever the figure
    reason: str = ""  # why there is no figure

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def point(self) -> tuple[str, float]:
        return self.group, self.ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The points that are known so far, in the order in which they were measured."""

    figure: str  # accuracy | loss | change | kl, see pruning_core.figures
    baseline: float  # the figure of the uncut model
    rows: tuple[SensitivityRow, ...]
    points: int  # of the whole grid
    locked: Mapping[str, str] = field(default_factory=dict)  # group -> why it is not looked at

    def __post_init__(self) -> None:
        if self.figure not in FIGURES:
            raise SpecError(f"figure {self.figure!r} is unknown", "figure", nearest(self.figure, FIGURES))

    @property
    def is_complete(self) -> bool:
        return len(self.rows) == self.points

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(sorted({row.ratio for row in self.rows}))

    @property
    def groups(self) -> tuple[str, ...]:
        """Of the rows; the middle ratio comes first, and there they stand in the model's order."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Raises: SpecError when it is no such table."""
        try:
            return cls(**{**data, "rows": tuple(SensitivityRow(**row) for row in data["rows"])})
        except (KeyError, TypeError) as exc:
            raise SpecError(f"this is no table of sensitivities: {exc}", "Sensitivity", "measure it again") from exc

    def to_pandas(self) -> pd.DataFrame:
        """One row per point."""
        import pandas as pd

        columns = [f.name for f in dataclasses.fields(SensitivityRow)]
        return pd.DataFrame([[getattr(row, c) for c in columns] for row in self.rows], columns=columns)

    def __str__(self) -> str:
        drops = {row.point: row for row in self.rows}
        head = ("group", "width", *(f"drop at {ratio:g}" for ratio in self.ratios))
        lines = []
        for group in self.groups:
            mine = [drops.get((group, ratio)) for ratio in self.ratios]
            width = next(row.width for row in mine if row is not None)
            lines.append((group, str(width), *(_cell(row) for row in mine)))
        total = f"{self.figure} of the uncut model: {self.baseline:.4g}; {len(self.rows)} of {self.points} points"
        return f"{table(head, lines)}\n{total}"


def _cell(row: SensitivityRow | None) -> str:
    if row is None:
        return "-"
    return row.reason if row.drop is None else f"{row.drop:+.4f}"


def _nothing(*_: object) -> None:
    return


@in_default_modes
def sensitivity(
    model: nn.Module,
    example_inputs: object,
    calibration: object,
    ratios: Sequence[float] = RATIOS,
    spec: PruningSpec = DEFAULT,
    *,
    evaluation: object = None,
    figure: str = "auto",
    loss: Loss | None = None,
    known: Iterable[SensitivityRow] = (),
    on_start: Callable[[Sensitivity], None] = _nothing,
    on_row: Callable[[SensitivityRow, Sensitivity], None] = _nothing,
    stop: Callable[[], bool] = lambda: False,
) -> Sensitivity:
    """For every prunable group and every ratio: the figure with ONLY that group pruned and compensated.

    The spec says how (criterion, compensation, rounding, floors, exclusions); ratios and allocation are the grid's. The
    figure is taken on `evaluation`, the calibration data unless other data is given; `pruning_core.figures` says which
    one `auto` is. All groups at the middle ratio come first, then the other ratios, nearest to the middle first. `stop`
    is asked before each point; what is known by then is returned. `known` rows, of an earlier call on the same model,
    data and spec, are taken over as they are. `on_start` and `on_row` are told what is known so far.

    Raises: SpecError, ModelError, VerifyError. The caller's model is not changed.
    """
    grid = in_order(ratios)
    study_of = _Points.prepare(model, example_inputs, calibration, grid, spec, evaluation, figure, loss)
    names = {group.name for group in study_of.groups}
    rows = {row.point: row for row in known if row.group in names}
    points = list(dict.fromkeys((*rows, *((group.name, ratio) for ratio in grid for group in study_of.groups))))

    def so_far() -> Sensitivity:
        return Sensitivity(
            figure=study_of.meter.figure,
            baseline=study_of.baseline,
            rows=tuple(rows.values()),
            points=len(points),
            locked=dict(study_of.whole.left),
        )

    on_start(so_far())
    for point in points:
        if point in rows:
            continue
        if stop():
            break
        rows[point] = study_of.row(*point, rows.values())
        on_row(rows[point], so_far())
    return so_far()


def in_order(ratios: Sequence[float]) -> tuple[float, ...]:
    """The middle ratio first, then the others by their distance from it in the grid, the larger of two first.

    Raises: SpecError for a grid that is empty or holds something else than ratios above 0 and below 1.
    """
    fix = "pass fractions to remove, e.g. (0.25, 0.5, 0.75)"
    for ratio in ratios:
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1:
            raise SpecError(f"{ratio!r} is no ratio between 0 and 1", "ratios", fix)
    if not ratios:
        raise SpecError("there are no ratios", "ratios", fix)
    rising = sorted({float(ratio) for ratio in ratios})
    middle = len(rising) // 2
    return tuple(rising[k] for k in sorted(range(len(rising)), key=lambda k: (abs(k - middle), -k)))


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """What all points share."""

    subject: Subject
    spec: PruningSpec
    calibration: Calibration
    meter: Meter
    baseline: float
    whole: Draft  # of a plan that cuts every group at once: its analysis has been tried
    groups: tuple[ChannelGroup, ...]
    selected: Mapping[float, Selection]  # by ratio, of every group
    macs: int

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        example_inputs: object,
        calibration: object,
        grid: Sequence[float],
        spec: PruningSpec,
        evaluation: object,
        figure: str,
        loss: Loss | None,
    ) -> _Points:
        for name in ("index", "ratios", "budget"):
            if getattr(spec, name):
                fix = f"leave `{name}` out; exclude=[...] leaves layers alone"
                raise SpecError(f"sensitivity cuts one group at a time, and the spec has {name}", f"spec.{name}", fix)
        data = Calibration.of(calibration, model)
        if data is None:
            fix = "pass calibration=..., unlabelled inputs are enough"
            raise SpecError("sensitivity needs calibration data", "calibration", fix)
        subject = study(model, ExampleInputs.of(example_inputs))
        if any(t.device.type == "meta" for t in subject.tensors.values()):
            raise ModelError("the model is on the meta device and has no weights", "the model", "load its weights first")
        meter = Meter.of(
            figure, Calibration.of(evaluation, model) or data, real_twin(model).eval(), subject.trace.writes, loss
        )
        baseline = meter(meter.original)
        if not math.isfinite(baseline):
            fix = "look at the evaluation data: it must be preprocessed as the model expects"
            raise ModelError(f"the uncut model's {meter.figure} is no finite number", "evaluation", fix)
        spec = replace(spec, ratio=grid[0], allocator="uniform").resolved(has_calibration=True)
        scorer: Scorer = scorer_of(subject, spec, data, None)
        whole = make_plan(subject, spec, scorer)[1]
        groups = tuple(group for group in whole.groups if group.name in whole.kept)
        selected = {
            ratio: select(groups, scorer, replace(spec, ratio=ratio), frozenset(), whole.analysis, whole.left)
            for ratio in grid
        }
        macs = cost_of(model, subject.trace).macs
        return cls(subject, spec, data, meter, baseline, whole, groups, selected, macs)

    def row(self, name: str, ratio: float, known: Iterable[SensitivityRow]) -> SensitivityRow:
        """Rounding and floors may make two ratios the same cut, which is then measured once."""
        group = next(g for g in self.groups if g.name == name)
        selected = self.selected[ratio]
        keep = selected.kept[name]
        for other in known:
            if other.group == name and other.kept == len(keep):
                return replace(other, ratio=ratio)
        macs_factor, figure, reason = self._measure(group, keep, selected.reorders.get(name, []))
        return SensitivityRow(
            group=name,
            layers=group.layers,
            width=group.channels,
            ratio=ratio,
            kept=len(keep),
            macs_factor=macs_factor,
            figure=figure,
            drop=None if figure is None else self.meter.drop(figure, self.baseline),
            reason=reason,
        )

    def _measure(
        self, group: ChannelGroup, keep: tuple[int, ...], reorders: Sequence[Reorder]
    ) -> tuple[float, float | None, str]:
        """(MACs factor, figure or None, why there is none)"""
        if len(keep) == group.channels:
            return 1.0, self.baseline, ""
        draft = draft_of(self.whole.analysis, self.whole.groups, {group.name: keep}, self.whole.left)
        subject = self.subject.reordered(reorders)
        try_draft(subject, draft)
        if draft.mismatch is not None:
            return 1.0, None, f"cannot be cut alone: {draft.mismatch.detail}"
        pruned = cut_copy(subject.model, draft.slices, draft.mends, draft.rescales).eval()
        macs = cost_of(pruned, draft.retraced).macs
        compensate(subject, pruned, draft, self.calibration, self.spec)
        figure = self.meter(pruned)
        factor = self.macs / macs if macs else 1.0
        return (factor, figure, "") if math.isfinite(figure) else (factor, None, f"its {self.meter.figure} is not finite")
