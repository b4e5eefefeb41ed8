"""Backward elimination: which channels can go with the least damage that no linear repair mends.

Reference: Hassibi & Stork, Optimal Brain Surgeon, NIPS 1992; Meng et al., OSSCAR, ICML 2024; Kurtic et al., ZipLM,
NeurIPS 2023 (there for the columns of one weight; here for channels and all their consumers at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 256  # about so many removals; wider groups lose several channels at once
TIED = 0.25  # squared partial correlation from which two channels do not go at once: the loss of one makes the other dear
LOOKED_AT = 4  # candidates for each channel that goes
HAIR, TINY = 1e-12, 1e-300  # by which equal damages differ, relative and from 0
RIDGE = 1e-3  # share of the mean diagonal of the Gram matrix, the constant apart
CONSTANT_RIDGE = 1e-5  # enough for sums in single precision


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """One consumer of a channel group. G convolution groups, D inputs of each, R outputs times kernel positions.

    gram [G, D, D]: mean of x x^T (the last input may be a `constant`); weight [G, D, R], in units in which an error of
    1 counts alike in every consumer; members [C, P]: the inputs that belong to each channel; channels [C]: which of the
    group these are, all of them if not given.
    """

    gram: Tensor
    weight: Tensor
    members: Tensor
    constant: bool = False
    channels: Tensor | None = None


def eliminate(readers: Sequence[Reader], channels: int) -> Tensor:
    """Damage of each channel at the moment of its removal, [C] >= 0, in squared units of the readers' outputs.

    One channel at a time goes, always the one whose loss, after the best linear repair from the inputs that are left,
    is smallest: tr(W_i^T (H_ii)^-1 W_i) with H the inverse Gram matrix; then W and H are updated. Later removals cost
    more, so damages are made to rise along that order, be it by a hair: equal ones would be taken in another.
    """
    states = [_State.of(reader, channels) for reader in readers]
    damage = torch.zeros(channels, dtype=torch.float64)
    left = torch.ones(channels, dtype=torch.bool)
    at_once = -(-channels // STEPS)
    highest, gone = 0.0, 0
    while bool(left.any()):
        costs = torch.zeros(channels, dtype=torch.float64)
        for state in states:
            costs[state.channels] += state.costs()
        costs[~left] = torch.inf
        cheapest = costs.argsort(stable=True)[: min(LOOKED_AT * at_once if at_once > 1 else 1, int(left.sum()))]
        going = _apart(cheapest, states, at_once)
        for channel in going.tolist():
            highest = max(highest, float(costs[channel]))
            damage[channel] = highest * (1 + HAIR * gone) + TINY * gone
            gone += 1
        left[going] = False
        for state in states:
            state.remove(going)
    return damage


def _apart(channels: Tensor, states: Sequence[_State], number: int) -> Tensor:
    """The first channels, at most `number`, that are not tied to one before them, such as its copy."""
    if len(channels) == 1:
        return channels
    tied = torch.stack([state.ties(channels) for state in states]).amax(dim=0) > TIED
    taken: list[int] = []
    for k in range(len(channels)):
        if not bool(tied[k, taken].any()):
            taken.append(k)
        if len(taken) == number:
            break
    return channels[taken]


def ridged(gram: Tensor, constant: bool = False) -> Tensor:
    """[..., D, D] with the ridge on its diagonal: a dead input makes no matrix singular.

    `constant`: the last input is one. It has no part in the scale of the ridge, so that the repair does not depend on
    the unit of the activations, and next to none of its own, so that their means stay.
    """
    gram = gram.double().clone()
    inputs = gram.diagonal(dim1=-2, dim2=-1)[..., : gram.shape[-1] - constant]
    if inputs.shape[-1]:
        inputs += (RIDGE * inputs.mean(dim=-1, keepdim=True)).clamp_min(1e-30)
    if constant:
        gram[..., -1, -1] *= 1 + CONSTANT_RIDGE
    return gram


def repair(gram: Tensor, gone: Tensor, kept: Tensor, constant: bool = False) -> Tensor:
    """How the inputs that are gone are best expressed by the kept ones: [D, D] -> [gone, kept].

    B = G_RK (G_KK + ridge)^-1. `constant`: the last of the kept ones is one.
    """
    within = torch.linalg.cholesky(ridged(gram[kept][:, kept], constant))
    shares: Tensor = torch.cholesky_solve(gram[kept][:, gone].double(), within).T
    return shares


def with_common_constant(moved: Tensor, gram: Tensor, kept: Tensor, taps: int) -> Tensor:
    """[kept + 1, O taps] -> the same, where the constant, the last row, is one number for all kernel positions.

    For outputs that see a part of the kernel each, as those of a strided transposed convolution, and have one bias: what
    the positions do not have in common goes through the kept inputs, as far as these can stand in for a constant. That
    is the joint least-squares solution: w_t(c) = w_t + (c_t - c) G_KK^-1 m_K, with c the mean of the c_t.
    """
    by_tap = moved[-1].reshape(-1, taps)
    common = by_tap.mean(dim=1, keepdim=True).expand_as(by_tap)
    stand_in = repair(gram, torch.tensor([len(gram) - 1]), kept)  # [1, kept]
    return torch.cat([moved[:-1] + stand_in.T.to(moved) * (by_tap - common).flatten(), common.reshape(1, -1)])


@dataclass(slots=True, eq=False)
class _State:
    inverse: Tensor  # [G, D, D] H
    inner: Tensor  # [G, D, D] W W^T, all that the costs need of the weight
    members: Tensor  # [C, P]
    channels: Tensor  # [C] of the group
    place: Tensor  # of each channel of the group among these; -1 of one that is not read

    @classmethod
    def of(cls, reader: Reader, channels: int) -> _State:
        weight = reader.weight.double()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridged(reader.gram, reader.constant)))
        mine = torch.arange(channels) if reader.channels is None else reader.channels
        place = torch.full((channels,), -1)
        place[mine] = torch.arange(len(mine))
        return cls(inverse, weight @ weight.transpose(1, 2), reader.members, mine, place)

    def costs(self) -> Tensor:
        """[C]: what each of its channels costs now. Meaningless for one that is gone."""
        if self.members.shape[1] == 1:
            at = self.members[:, 0]
            diagonals = [m.diagonal(dim1=1, dim2=2)[:, at] for m in (self.inner, self.inverse)]
            costs: Tensor = (diagonals[0] / diagonals[1]).sum(dim=0)
            return costs
        rows, columns = self.members[:, :, None], self.members[:, None]
        solved = torch.linalg.solve(self.inverse[:, rows, columns], self.inner[:, rows, columns])
        blocks: Tensor = solved.diagonal(dim1=2, dim2=3).sum(dim=(0, 2))
        return blocks

    def ties(self, channels: Tensor) -> Tensor:
        """[n, n] squared partial correlations of these channels: what one takes over of another, given all the rest."""
        found = torch.zeros(len(channels), len(channels), dtype=torch.float64)
        read = (self.place[channels] >= 0).nonzero()[:, 0]
        at = self.members[self.place[channels[read]]]
        between = self.inverse[:, at[:, None], at[None]]  # [G, n, n, P]
        alone = self.inverse[:, at, at]
        if len(read):
            found[read[:, None], read[None]] = (between.square() / (alone[:, :, None] * alone[:, None])).amax(dim=(0, 3))
        return found

    def inputs_of(self, channels: Tensor) -> Tensor:
        place = self.place[channels]
        return self.members[place[place >= 0]].flatten()

    def remove(self, channels: Tensor) -> None:
        """Repair the others as well as they can; then the inverse is that of the Gram matrix without these inputs."""
        at = self.inputs_of(channels)
        if not len(at):
            return
        columns = self.inverse[:, :, at]
        gain = torch.linalg.solve(self.inverse[:, at][:, :, at], columns.transpose(1, 2)).transpose(1, 2)
        cross = self.inner[:, :, at] - gain @ self.inner[:, at][:, :, at] / 2  # so W W^T loses cross gain^T + gain cross^T
        left, right = torch.cat([cross, gain], dim=2), torch.cat([gain, cross], dim=2)
        self.inner.baddbmm_(left, right.transpose(1, 2), alpha=-1)  # in place: these matrices are read and written
        self.inverse.baddbmm_(gain, columns.transpose(1, 2), alpha=-1)  # hundreds of times, and that is what it costs
        for matrix in (self.inverse, self.inner):
            matrix[:, at] = 0
            matrix[:, :, at] = 0
        self.inverse[:, at, at] = 1
