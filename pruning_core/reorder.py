"""Entries that change places before a cut, so that every part of a split axis loses the same ones. The function stays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_core.errors import PlanError
from pruning_core.twin import like, named_tensors, twin

REPLAN = "re-plan this model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """Entries along one axis of one tensor that change places before the cut, so that every part loses the same ones.

    The model computes what it did: all tensors of the group are reordered alike. With blocks, every block of rows has
    an order of its own along the axis.
    """

    tensor: str
    axis: int
    order: tuple[int, ...]  # [blocks x width]: where the entry comes from, of every place, block after block
    blocks: int = 1

    def __post_init__(self) -> None:
        where = f"tensor {self.tensor!r} axis {self.axis}"
        if self.axis < 0 or self.blocks < 1 or (self.axis == 0 and self.blocks > 1) or len(self.order) % self.blocks:
            raise PlanError(f"{self.blocks} blocks of rows fit neither the axis nor the order", where, REPLAN)
        width = len(self.order) // self.blocks
        inside = all(type(place) is int and place // width == k // width for k, place in enumerate(self.order))
        if not inside or sorted(self.order) != list(range(len(self.order))):
            raise PlanError("an order must hold every place of a block once", where, REPLAN)


class Cut(Protocol):
    """What stays of an axis."""

    @property
    def width(self) -> int: ...
    @property
    def keep(self) -> tuple[int, ...]: ...


def reordered(model: nn.Module, reorders: Sequence[Reorder]) -> nn.Module:
    """A copy with entries in other places, which shares all tensors that stay as they are; the model itself without any."""
    if not reorders:
        return model
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}

    def moved(tensor: Tensor) -> Tensor:
        mine = [item for item in reorders if item.tensor == names.get(id(tensor), "")]
        data = tensor.detach()
        for item in mine:
            order = torch.tensor(item.order, device=data.device)
            rows = data.reshape(item.blocks, -1, *data.shape[1:])
            first = rows.movedim(item.axis + 1, 1)  # [blocks, width, rows of a block, ...]
            placed = first.flatten(0, 1).index_select(0, order).reshape(first.shape)
            data = placed.movedim(1, item.axis + 1).reshape(data.shape)
        return like(tensor, data) if mine else tensor

    return twin(model, moved)


def composed(first: Sequence[Reorder], then: Sequence[Reorder], slices: Mapping[tuple[str, int], Cut]) -> list[Reorder]:
    """One reordering of the original for two, with a cut in between: `slices` of the original, after the first one."""
    found = {(r.tensor, r.axis): r for r in first}
    for late in then:
        key = late.tensor, late.axis
        early, cut = found.get(key), slices.get(key)
        blocks = late.blocks if early is None else math.lcm(early.blocks, late.blocks)
        left = len(late.order) // late.blocks
        width = left if cut is None else cut.width
        keep = np.arange(left) if cut is None else np.array(cut.keep)
        places = (np.arange(blocks)[:, None] * width + keep).ravel()
        order = np.arange(blocks * width)
        order[places] = places[_in_blocks(late, blocks)]
        if early is not None:
            order = _in_blocks(early, blocks)[order]
        found[key] = replace(late, blocks=blocks, order=tuple(order.tolist()))
    return list(found.values())


def _in_blocks(reorder: Reorder, blocks: int) -> NDArray[np.int64]:
    """Its order where the rows are looked at in more blocks than its own."""
    width = len(reorder.order) // reorder.blocks
    inside = np.array(reorder.order).reshape(reorder.blocks, width) % width
    return np.asarray(inside.repeat(blocks // reorder.blocks, axis=0) + np.arange(blocks)[:, None] * width).ravel()
