"""Scores of channel groups: what a criterion says of each member, made comparable and combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_core.allocators import ScoredGroup
from pruning_core.coupling.groups import ChannelGroup, Member, layer_of
from pruning_core.coupling.structure import Structure
from pruning_core.criteria import CRITERIA, NEEDS, WHOLE, WITH_LABELS, ChannelView
from pruning_core.damage import Damages
from pruning_core.errors import ModelError, PruningError, SpecError
from pruning_core.latency_table import LatencyTable
from pruning_core.normalizers import Scores
from pruning_core.observe.observations import Observations
from pruning_core.policies import combine, fold_positions
from pruning_core.slices import rows_of, view_of_slices
from pruning_core.spec import PruningSpec
from pruning_core.tree import is_prunable_dtype

COMPARING = frozenset({"global", "slamp", "isomorphic", "budget"})  # allocators that compare groups with each other


class Scorer:
    """Scores of the positions of one axis of one tensor, each computed once however often a plan is tried."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        criterion: str,
        observations: Observations | None = None,
        seed: int = 0,
        damages: Damages | None = None,
    ) -> None:
        self.tensors = tensors
        self.damages = damages
        self.name = criterion
        self.criterion = CRITERIA[criterion]
        self.needs = NEEDS.get(criterion, frozenset())
        self.observations = observations
        self.seed = seed
        self.latencies: LatencyTable | None = None
        self.originals: Mapping[tuple[str, int], Scores] = {}  # [n] channels that each position of an axis stands for
        self._known: dict[tuple[object, ...], Scores] = {}

    @property
    def parameters(self) -> frozenset[str]:
        return frozenset(name for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter))

    def positions(self, member: Member) -> Scores:
        """[n] scores of an axis.

        Raises: ModelError for weights or scores that are no numbers, and where `bn_scale` finds no BatchNorm; SpecError
        where the criterion needs an observation that was not made, or that this tensor cannot have.
        """
        key = (member.tensor, member.axis, member.blocks)
        if key not in self._known:
            tensor = self.tensors[member.tensor].detach()
            if tensor.device.type == "meta":
                return np.ones(len(member.channel_of))
            if not self.sees(member):
                raise self._blind(member)
            self._known[key] = self._judged(self._view(member, tensor), [member])
        return self._known[key]

    def originals_of(self, group: ChannelGroup) -> float:
        """Channels of the unpruned model per channel of the group; 1 where no round of pruning went before."""
        member = group.root
        found = self.originals.get((member.tensor, member.axis))
        return 1.0 if found is None else float(found[member.channel_of >= 0].mean())

    def whole(self, members: Sequence[Member], channels: int) -> Scores:
        """[channels] scores of a group by a criterion that looks at all members at once. Raises: as `positions`."""
        key = (channels, *((m.tensor, m.axis, m.channel_of.tobytes()) for m in members))
        if key not in self._known:
            if any(self.tensors[m.tensor].device.type == "meta" for m in members):
                return np.ones(channels)
            seen = self.observations
            if seen is None or not seen.gradients:  # the criterion says that there are none
                view = self._view(members[0], self.tensors[members[0].tensor].detach())
            elif all(map(self.sees, members)):
                view = view_of_slices(members, channels, self.tensors, seen.gradients)
            else:
                raise self._blind(members[0])
            self._known[key] = self._judged(view, members)
        return self._known[key]

    def _judged(self, view: ChannelView, members: Sequence[Member]) -> Scores:
        with torch.no_grad():
            scores = self.criterion(view).double().cpu().numpy()
        if not np.isfinite(scores).all():
            raise self._no_numbers(members)
        return scores

    def sees(self, member: Member) -> bool:
        """Whether this axis has what the criterion needs. What was not observed of any is left to the criterion to say."""
        seen, key = self.observations, (member.tensor, member.axis)
        if seen is None:
            return True
        width = len(member.channel_of)
        has_map = not seen.features or (key in seen.features and len(seen.features[key].magnitude_C) == width)
        has = {
            "features": has_map,
            "nuclear": has_map,
            "gamma": key in seen.gamma and len(seen.gamma[key]) == width,
            "gradients": not seen.gradients or member.tensor in seen.gradients,
            "squares": not seen.squares or member.tensor in seen.squares,
            "damage": True,
        }
        return all(has[need] for need in self.needs)

    def _view(self, member: Member, tensor: Tensor) -> ChannelView:
        seen, key = self.observations or Observations(), (member.tensor, member.axis)
        gradient, square = seen.gradients.get(member.tensor), seen.squares.get(member.tensor)
        return ChannelView(
            member.tensor,
            rows_of(tensor, member.axis, member.blocks),
            grad_CR=None if gradient is None else rows_of(gradient, member.axis, member.blocks),
            square_CR=None if square is None else rows_of(square, member.axis, member.blocks),
            features=seen.features.get(key),
            gamma_C=seen.gamma.get(key),
            samples=max(seen.samples, 1),
            seed=self.seed,
        )

    def _blind(self, member: Member) -> PruningError:
        layer = layer_of(member.tensor)
        fix = f"exclude {layer!r}, or use a criterion that looks at weights only, e.g. 'l2_norm'"
        if "gamma" in self.needs:
            return ModelError(f"criterion {self.name!r} finds no BatchNorm behind this layer", f"layer {layer!r}", fix)
        if self.needs & WITH_LABELS:
            what = f"criterion {self.name!r} finds no gradient of {member.tensor!r}: it is no parameter"
            return SpecError(what, f"layer {layer!r}", fix)
        what = f"criterion {self.name!r} finds no feature map here: this is no convolution's or linear layer's own output"
        return SpecError(what, f"layer {layer!r}", fix)

    def _no_numbers(self, members: Sequence[Member]) -> ModelError:
        names = [m.tensor for m in members]
        bad = next((n for n in names if not bool(torch.isfinite(self.tensors[n].detach()).all())), None)
        if bad is None:
            what, fix = f"criterion {self.name!r} gives NaN or infinite scores", "use another criterion, e.g. 'l2_norm'"
        else:
            what, fix = "the weights hold NaN or infinite values", "load a checkpoint whose training did not diverge"
        return ModelError(what, f"parameter {bad or names[0]!r}", fix)


def scored_members(group: ChannelGroup, scorer: Scorer) -> list[Member]:
    """Whose scores make a group's: weights whose output it is, of these the ones that the criterion can see.

    For a criterion of whole groups all members count: biases, scales and shifts, and the consumers' weights too.
    """
    floats = [m for m in group.members if is_prunable_dtype(scorer.tensors[m.tensor].dtype)]
    filters = [m for m in group.members if m.produces and scorer.tensors[m.tensor].ndim > 1]
    members = floats if scorer.name in WHOLE else filters or [m for m in floats if m.blocks == 1]
    return [m for m in members if scorer.sees(m)] or members


def unseen(groups: Sequence[ChannelGroup], scorer: Scorer) -> dict[str, str]:
    """Groups of which the criterion sees no member, and why: `scored` would raise for them."""
    blind = {g.name: scored_members(g, scorer)[0] for g in groups if not any(map(scorer.sees, scored_members(g, scorer)))}
    return {name: scorer._blind(member).what for name, member in blind.items()}


def scored(
    group: ChannelGroup,
    scorer: Scorer,
    spec: PruningSpec,
    blocks: NDArray[np.int64] | None = None,
    structure: Structure = (),
) -> ScoredGroup:
    """One score per channel: each producing member's scores, folded, normalised and combined.

    A criterion of whole groups gives one row, summed over positions already: `average` divides it by their number.
    """
    members = scored_members(group, scorer)
    if scorer.name in WHOLE:
        rows = [scorer.whole(members, group.channels) / (group.positions if spec.group_policy == "average" else 1)]
    else:
        rows = [fold_positions(scorer.positions(m), m.channel_of, group.channels, spec.group_policy) for m in members]
    scores = combine(rows, spec.normalizer, spec.policy)
    return ScoredGroup(group.name, group.layers, scores, blocks, group.positions, structure)


def scored_groups(
    groups: Sequence[ChannelGroup],
    scorer: Scorer,
    spec: PruningSpec,
    blocks: Mapping[str, NDArray[np.int64] | None],
    kinds: Mapping[str, Structure],
) -> list[ScoredGroup]:
    """Every group with its scores. Damages are comparable as they are: no normalizer or policy touches them.

    A group whose damage cannot be told takes that of the others, shared out by the size of its filters.
    """

    def by(scorer: Scorer, spec: PruningSpec, group: ChannelGroup) -> ScoredGroup:
        return scored(group, scorer, spec, blocks[group.name], kinds[group.name])

    if scorer.damages is None:
        return [by(scorer, spec, group) for group in groups]
    damages = scorer.damages.of(groups, compared=spec.allocator in COMPARING)
    usual = float(np.median([d.mean() for d in damages.values()])) if damages else 1.0
    sizes, shares = Scorer(scorer.tensors, "l2_norm"), replace(spec, normalizer="tss")
    found = [by(sizes, shares, group) for group in groups]
    return [replace(g, scores=damages.get(g.name, g.scores * usual * g.channels)) for g in found]
