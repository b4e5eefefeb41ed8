"""What was decided: frozen, checked at birth, printable, and the same after a trip through JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import lt
from typing import Any

from pruning_core.channels import from_ranges, to_ranges
from pruning_core.errors import PlanError
from pruning_core.reorder import REPLAN, Reorder
from pruning_core.spec import PruningSpec
from pruning_core.tables import table

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCut:
    """One decision: which channels of a group stay, in every layer of it."""

    group: str
    layers: tuple[str, ...]  # layers whose output width this is
    width: int  # channels before
    keep: tuple[int, ...]  # sorted, unique, each in [0, width), not empty
    positions: int = 1  # positions of the layer's axis that one channel stands for
    apart: bool = False  # each of these has lost channels of its own: `keep` holds places after the plan's reorders

    def __post_init__(self) -> None:
        _check_keep(self.keep, self.width, f"group {self.group!r}")

    @property
    def ratio(self) -> float:
        return 1 - len(self.keep) / self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSlice:
    """What the decisions mean for one axis of one tensor."""

    tensor: str
    axis: int
    width: int
    keep: tuple[int, ...]
    numbers: tuple[int, ...] = ()  # of a buffer that holds channel numbers: what they are after the cut

    def __post_init__(self) -> None:
        _check_keep(self.keep, self.width, f"tensor {self.tensor!r} axis {self.axis}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeMend:
    """A size that Python code holds, set to what the cut makes of it. Lists and tuples are written as JSON lists."""

    module: str
    attribute: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """A constant that the model computes from a size, put right by scaling a parameter's entries along one axis."""

    tensor: str
    axis: int
    positions: tuple[int, ...]  # of the original tensor, its reorders done
    factor: float
    call: int  # the call whose constant it undoes


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """Channels that were left alone, and why."""

    group: str
    layers: tuple[str, ...]
    width: int
    reason: str
    prunable: bool = False  # they could have gone


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """Everything that `apply` needs. It refuses a model whose fingerprint differs."""

    fingerprint: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]  # name and shape of every tensor of the original
    inputs: Mapping[str, Any]  # example inputs, as `ExampleInputs.to_json` writes them
    spec: PruningSpec
    cuts: tuple[GroupCut, ...]
    slices: tuple[TensorSlice, ...]
    mends: tuple[AttributeMend, ...] = ()
    rescales: tuple[Rescale, ...] = ()
    choices: tuple[tuple[int, int, int], ...] = ()  # (call, ordinal, factor kept), see coupling.analysis
    locked: tuple[Locked, ...] = ()
    approximate: tuple[tuple[str, str], ...] = ()  # (group, the statistic that runs over the pruned axis)
    not_run: tuple[str, ...] = ()  # layers that the example inputs do not reach: not cut, and nobody knows if they fit
    even: tuple[tuple[str, ...], ...] = ()  # groups that keep equal shares, as the code wants it
    reorders: tuple[Reorder, ...] = ()  # done first: slices, rescales and cuts are in places of the reordered model

    def __post_init__(self) -> None:
        shapes = dict(self.tensors)
        for cut in self.slices:
            shape = shapes.get(cut.tensor)
            if shape is None or cut.axis >= len(shape) or shape[cut.axis] != cut.width:
                raise PlanError(
                    f"slice of axis {cut.axis} (width {cut.width}) fits no tensor of the plan", cut.tensor, REPLAN
                )
        for item in self.reorders:
            shape = shapes.get(item.tensor, ())
            if item.axis >= len(shape) or shape[item.axis] * item.blocks != len(item.order) or shape[0] % item.blocks:
                raise PlanError(f"order of axis {item.axis} fits no tensor of the plan", item.tensor, REPLAN)

    @property
    def channels_before(self) -> int:
        return sum(cut.width * cut.positions for cut in self.cuts) + sum(lock.width for lock in self.locked)

    @property
    def channels_after(self) -> int:
        return sum(len(cut.keep) * cut.positions for cut in self.cuts) + sum(lock.width for lock in self.locked)

    @property
    def prunable_before(self) -> int:
        """Channels that could have gone, each group once; `prunable_after` of them are left."""
        whole = sum(lock.width for lock in self.locked if lock.prunable)
        return sum(cut.width * cut.positions for cut in self.cuts) + whole

    @property
    def prunable_after(self) -> int:
        return self.prunable_before - self.channels_before + self.channels_after

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be promised of the pruned model, and what was asked for and could not be."""
        found = []
        if self.cuts and self.not_run:
            found.append(f"not run on the example inputs, so not cut, and may not fit: {', '.join(self.not_run)}")
        alike = [cut.group for cut in self.cuts if cut.positions > 1 and not cut.apart]
        if alike and not self.spec.index and self.spec.group_policy in {"count", "none"}:
            found.append(
                f"group_policy {self.spec.group_policy!r}: the positions that a channel of {', '.join(alike)} stands for "
                "only go together: whole groups or heads, a shared axis, a sum over them or a lock"
            )
        if self.spec.index and alike:
            found.append(f"index: of {', '.join(alike)} each channel goes from all parts at once, for they must stay equal")
        if unheeded := self.spec.unheeded:
            why = f"{self.spec.criterion} compares damages as they are"
            but = ", but where equal shares are kept" if self.even and not self.spec.budget else ""
            found.append(f"not heeded{but}: {', '.join(unheeded)}: {why}")
        return tuple(found)

    def rows_kept(self, tensor: str) -> tuple[int, ...] | None:
        """Which rows of the original tensor stay, in the order in which the cut tensor has them; None of an uncut one."""
        cut = next((part for part in self.slices if part.tensor == tensor and part.axis == 0), None)
        if cut is None:
            return None
        rows = cut.keep
        for item in reversed([item for item in self.reorders if item.tensor == tensor and item.axis == 0]):
            rows = tuple(item.order[row] for row in rows)
        return rows

    def to_json(self) -> str:
        data = dataclasses.asdict(self)
        data["spec"] = self.spec.to_dict()
        for part in (*data["cuts"], *data["slices"]):
            part["keep"] = to_ranges(part["keep"])
        for part in data["rescales"]:
            part["positions"] = to_ranges(part["positions"])
        return json.dumps({"format": FORMAT, **data}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Raises: PlanError when the text is no plan, or one of another format."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise PlanError("the plan was written in another format", "plan.format", REPLAN)
            return cls(
                fingerprint=data["fingerprint"],
                tensors=tuple((name, tuple(shape)) for name, shape in data["tensors"]),
                inputs=data["inputs"],
                spec=PruningSpec.from_dict(data["spec"]),
                cuts=tuple(
                    GroupCut(**c | {"keep": from_ranges(c["keep"]), "layers": tuple(c["layers"])}) for c in data["cuts"]
                ),
                slices=tuple(
                    TensorSlice(**s | {"keep": from_ranges(s["keep"]), "numbers": tuple(s.get("numbers", ()))})
                    for s in data["slices"]
                ),
                mends=tuple(AttributeMend(**m) for m in data["mends"]),
                rescales=tuple(Rescale(**r | {"positions": from_ranges(r["positions"])}) for r in data["rescales"]),
                choices=tuple((a, b, c) for a, b, c in data["choices"]),
                locked=tuple(Locked(**k | {"layers": tuple(k["layers"])}) for k in data["locked"]),
                approximate=tuple((a, b) for a, b in data["approximate"]),
                not_run=tuple(data.get("not_run", ())),
                even=tuple(tuple(names) for names in data.get("even", ())),
                reorders=tuple(Reorder(**r | {"order": tuple(r["order"])}) for r in data.get("reorders", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise PlanError(f"this is no pruning plan: {type(exc).__name__}: {exc}", "plan JSON", REPLAN) from exc

    def __str__(self) -> str:
        rows = [
            (
                ", ".join(c.layers) or c.group,
                f"{c.width * c.positions}",
                f"{len(c.keep) * c.positions}",
                f"{c.ratio:.0%}",
                "",
            )
            for c in self.cuts
        ]
        rows += [(", ".join(k.layers), str(k.width), str(k.width), "0%", k.reason) for k in self.locked]
        notes = [f"approximate: {group}: {why}" for group, why in self.approximate]
        notes += [f"equal shares: {', '.join(names)}: code reads one's width off another's" for names in self.even]
        notes += [f"set {m.module}.{m.attribute}: {m.old} -> {m.new}" for m in self.mends if m.attribute not in _OBVIOUS]
        notes += [f"scaled {r.tensor} by {r.factor:.4g} in {len(r.positions)} rows, for a constant" for r in self.rescales]
        notes += self.notes
        return "\n".join([table(("layers", "before", "after", "removed", "why it was left alone"), rows), *notes])


_OBVIOUS = {"in_channels", "out_channels", "in_features", "out_features", "num_features", "normalized_shape", "groups"}


def _check_keep(keep: tuple[int, ...], width: int, where: str) -> None:
    if not keep or keep[0] < 0 or keep[-1] >= width or not all(map(lt, keep, keep[1:])):
        raise PlanError(f"keep must be sorted, unique, not empty and inside [0, {width})", where, REPLAN)
