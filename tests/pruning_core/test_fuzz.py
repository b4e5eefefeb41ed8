"""Random programs over a vocabulary of calls: what the structural check lets through, the numeric check confirms."""

import contextlib
from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from tests.models import seeded

WIDTHS = (12, 16, 24)
Step = tuple[str, int, int, int]  # call, two operands (counted from the last value), a number


def _same_width(a: Tensor, b: Tensor) -> Tensor:
    n = min(a.shape[1], b.shape[1])
    return b if a.shape == b.shape else b[:, :n].repeat(1, -(-a.shape[1] // n))[:, : a.shape[1]]


# each takes the last value, another one, and a number between 1 and 8
CALLS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "relu": lambda a, b, k: a.relu(),
    "add": lambda a, b, k: a + _same_width(a, b),
    "multiply": lambda a, b, k: a * _same_width(a, b).sigmoid(),
    "cat": lambda a, b, k: torch.cat((a, b), 1),
    "over_width": lambda a, b, k: a / a.shape[1],
    "alpha": lambda a, b, k: torch.add(a, a.cos(), alpha=k / a.shape[1]),
    "clamp": lambda a, b, k: a.clamp(max=a.shape[1] / 8),
    "full": lambda a, b, k: a * torch.full((1,), 1 / a.shape[1]),
    "number": lambda a, b, k: a * torch.tensor(1 / a.shape[1]),
    "full_twice": lambda a, b, k: (lambda f: torch.cat((a * f, b * f), 1))(torch.full((1,), 1 / a.shape[1])),
    "new_tensor": lambda a, b, k: a * a.new_tensor([k / a.shape[1]]),
    "where": lambda a, b, k: torch.where(a > 0, a, k / a.shape[1]),
    "pad_value": lambda a, b, k: F.pad(a, (0, k), value=k / a.shape[1]),
    "power": lambda a, b, k: torch.linalg.vector_norm(a, a.shape[1] / 8, 1, keepdim=True) * b.cos(),
    "table": lambda a, b, k: a * torch.linspace(0, 1, 16)[a.shape[1] // 8 : a.shape[1] // 8 + 1],
    "either": lambda a, b, k: a.sin() - a.cos() if a.shape[1] >= 12 else a.cos() - a.sin(),
    "ranks": lambda a, b, k: a * torch.arange(a.shape[1]),
    "literal_slice": lambda a, b, k: a[:, k:],
    "half": lambda a, b, k: a[:, : a.shape[1] // 2],
    "from_middle": lambda a, b, k: a[:, a.shape[1] // 2 :],
    "from_end": lambda a, b, k: torch.cat((a, a[:, -k:].cos()), 1),
    "stride": lambda a, b, k: a[:, k % 2 :: 2],
    "column": lambda a, b, k: a * a[:, k, None],
    "middle_column": lambda a, b, k: a.cos() + a[:, a.shape[1] // 2, None],
    "pick": lambda a, b, k: a[:, [k, 0, k - 1, 3]].repeat(1, 3),
    "flip": lambda a, b, k: a.flip(1),
    "roll": lambda a, b, k: a.roll(k, 1),
    "roll_half": lambda a, b, k: a.roll(a.shape[1] // 2, 1),
    "pad": lambda a, b, k: F.pad(a, (k, 4), value=1.0),
    "crop": lambda a, b, k: F.pad(a, (-2, 2)),
    "swap_halves": lambda a, b, k: torch.cat(a.chunk(2, 1)[::-1], 1),
    "shuffle": lambda a, b, k: a.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1) if a.shape[1] % 2 == 0 else a,
    "group_max": lambda a, b, k: a.unflatten(1, (-1, 2)).amax(2).repeat(1, 2) if a.shape[1] % 2 == 0 else a,
    "interleave": lambda a, b, k: a.repeat_interleave(2, 1)[:, k % 2 :: 2],
    "tile": lambda a, b, k: a.tile(1, 2),
    "sort": lambda a, b, k: a.sort(1).values,
    "running_sum": lambda a, b, k: a.cumsum(1) / 10,
    "softmax": lambda a, b, k: a.softmax(1),
    "norm": lambda a, b, k: F.layer_norm(a, (a.shape[1],)),
    "mean": lambda a, b, k: a - a.mean(1, keepdim=True),
    "sum": lambda a, b, k: a.cos() * a.sum(1, keepdim=True),
    "gram": lambda a, b, k: (a @ a.mT).softmax(1) @ a,
    "attend": lambda a, b, k: F.scaled_dot_product_attention(a[None], _same_width(a, b)[None], a[None])[0],
    "written": lambda a, b, k: a.clone().index_fill_(1, torch.tensor([k]), 0.5),
    "set": lambda a, b, k: torch.cat((a[:, :k].cos(), a[:, k:]), 1),
    "zeros": lambda a, b, k: torch.cat((a, a.new_zeros(a.shape[0], a.shape[1] // 2)), 1),
}
LAYERS = ("linear", "norm_layer", "known_pick")
STEP = st.tuples(
    st.sampled_from((*CALLS, *LAYERS, "linear", "linear")), st.integers(1, 3), st.integers(1, 3), st.integers(1, 8)
)


class Program(nn.Module):
    """Runs the steps on a list of values; layers are made at the first run, for the widths that they meet."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList()
        self.first, self.made = nn.Linear(8, 24), False
        values = self.run(torch.rand(4, 8))
        self.made = True
        self.hidden, self.last = nn.Linear(values[-1].shape[1], 32), nn.Linear(32, 4)

    def layer(self, kind: str, width: int, k: int) -> nn.Module:
        if kind == "linear":
            return nn.Linear(width, WIDTHS[k % 3])
        return nn.BatchNorm1d(width) if kind == "norm_layer" else Pick(torch.randperm(width)[: max(width - k, 8)])

    def run(self, x: Tensor) -> list[Tensor]:
        values = [self.first(x)]
        at = 0
        for kind, one, two, k in self.steps:
            a, b = values[-min(one, len(values))], values[-min(two, len(values))]
            if a.shape[1] < 12 or a.shape[1] > 80:
                a = values[0]
            if kind in CALLS:
                values.append(CALLS[kind](a, b, k))
                continue
            if not self.made:
                self.layers.append(self.layer(kind, a.shape[1], k).eval())
            values.append(self.layers[at](a))
            at += 1
        return values

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(self.run(x)[-1]).relu())


class Pick(nn.Module):
    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order]


@settings(max_examples=80, derandomize=True)
@given(st.lists(STEP, min_size=1, max_size=9))
def test_what_the_structural_check_lets_through_is_right(steps: list[Step]) -> None:
    model = seeded(lambda: Program(steps))()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    with contextlib.suppress(pc.ModelError):  # where its code lets nothing go
        result = pc.prune(model, x, pc.PruningSpec(ratio=0.5, min_channels=3), check="numeric")
        assert result.report.mask_error is not None
