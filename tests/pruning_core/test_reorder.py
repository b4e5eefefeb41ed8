"""Entries in other places, and two reorderings as one."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pruning_core.plan import TensorSlice
from pruning_core.reorder import Reorder, composed, reordered

BLOCKS, ROWS, WIDTH = 2, 6, 4


def in_blocks(data: st.DataObject, width: int, blocks: int) -> Reorder:
    """Of every block an order of its own."""
    orders = [data.draw(st.permutations(range(width))) for _ in range(blocks)]
    order = tuple(block * width + place for block, mine in enumerate(orders) for place in mine)
    return Reorder(tensor="weight", axis=1, blocks=blocks, order=order)


def done(weight: Tensor, item: Reorder) -> Tensor:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return reordered(layer, [item]).weight.detach()


def test_blocks_of_rows_are_reordered_on_their_own() -> None:
    weight = torch.arange(8.0).reshape(4, 2)
    item = Reorder(tensor="weight", axis=1, blocks=2, order=(0, 1, 3, 2))
    assert done(weight, item).tolist() == [[0, 1], [2, 3], [5, 4], [7, 6]]
    assert weight.flatten().tolist() == list(range(8))  # a copy


@given(st.data())
def test_order_cut_order_cut_is_one_order_and_one_cut(data: st.DataObject) -> None:
    weight = torch.arange(float(ROWS * WIDTH)).reshape(ROWS, WIDTH)
    first = in_blocks(data, WIDTH, data.draw(st.sampled_from([1, 2, 3])))
    keep = tuple(sorted(data.draw(st.sets(st.integers(0, WIDTH - 1), min_size=2))))
    then = in_blocks(data, len(keep), data.draw(st.sampled_from([1, 2, 3])))
    slices = {("weight", 1): TensorSlice(tensor="weight", axis=1, width=WIDTH, keep=keep)}
    (both,) = composed([first], [then], slices)
    step_by_step = done(done(weight, first)[:, list(keep)], then)
    assert torch.equal(done(weight, both)[:, list(keep)], step_by_step)


def test_two_orders_of_one_axis_are_done_one_after_the_other() -> None:
    left = Reorder(tensor="weight", axis=0, order=(1, 0, 2, 3))
    right = Reorder(tensor="weight", axis=0, order=(0, 1, 3, 2))
    (both,) = composed([], [left, right], {})
    assert both.order == (1, 0, 3, 2)
