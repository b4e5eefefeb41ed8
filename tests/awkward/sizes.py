"""Code that computes with its own widths, or picks channels by numbers: what a cut changes without changing a shape.

Each function stands between two layers. `y` is [N, 32] and prunable; what comes back feeds a layer of its width. The
truth is the same for all: pruned or locked, the result is that of the original without the removed channels.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import Case, normal, seeded

WIDTH = 32
Fn = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A function between two layers; the hidden layer after it is open to any cut."""

    def __init__(self, fn: Fn) -> None:
        super().__init__()
        self.fn = fn
        with torch.no_grad():
            width = fn(torch.rand(2, WIDTH)).shape[-1]
        self.a, self.b, self.c = nn.Linear(8, WIDTH), nn.Linear(width, 128), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.fn(self.a(x))).relu())


def _fill_twice(y: Tensor) -> Tensor:
    """One constant in a tensor, used twice: to fold it into one of the readers would be wrong."""
    scale = torch.full((1,), 1 / math.sqrt(y.shape[1]))
    left, right = y.chunk(2, 1)
    return torch.cat((left * scale, right * scale), 1)


def _set_item(y: Tensor) -> Tensor:
    z = y.clone()
    z[:, :4] = float(y.shape[1])
    return z


def _swap_branches(y: Tensor) -> Tensor:
    one, two = y.sin(), y.cos()
    return one - two if y.shape[1] == WIDTH else two - one


def _other_half(y: Tensor) -> Tensor:
    """Same calls, same shapes: which of two equal parts is read depends on the width."""
    parts = torch.linspace(0, 1, 8).mul(torch.ones(2, 8)).unbind(0)
    extra = (parts[0] * 2, parts[1] * 3)[y.shape[1] == WIDTH]
    return torch.cat((y, extra.expand(y.shape[0], 8)), 1)


def _in_place_scale(y: Tensor) -> Tensor:
    z = y * 1.0
    z /= math.sqrt(z.shape[1])
    return z


_SPATIAL = torch.linspace(0, 1, 24)

NUMBERS: dict[str, Fn] = {
    "times_width": lambda y: y * y.shape[1],
    "over_root_width": lambda y: (y / math.sqrt(y.shape[1])).relu(),
    "root_of_power": lambda y: y.sigmoid() ** (1 / y.shape[1]),
    "power_of_number": lambda y: (1 + 1 / y.shape[1]) ** y,
    "sum_over_width": lambda y: torch.cat((y, y.sum(1, keepdim=True) / y.shape[1]), 1),
    "mean_times_width": lambda y: torch.cat((y, y.mean(1, keepdim=True) * y.shape[1]), 1),
    "clamped": lambda y: y.clamp(-4 / y.shape[1], max=y.shape[1] / 40),
    "hard_tanh": lambda y: F.hardtanh(y, -4 / y.shape[1], 4 / y.shape[1]),
    "leaky": lambda y: F.leaky_relu(y, 1 / y.shape[1]),
    "soft_plus": lambda y: F.softplus(y, beta=y.shape[1] / 8),
    "elu_alpha": lambda y: F.elu(y, alpha=y.shape[1] / 8),
    "added_alpha": lambda y: torch.add(y, y.sin(), alpha=1 / y.shape[1]),
    "addcmul_value": lambda y: torch.addcmul(y, y.sin(), y.cos(), value=1 / y.shape[1]),
    "lerp_weight": lambda y: torch.lerp(y, y.sin(), 1 / y.shape[1]),
    "full_of_width": lambda y: y * torch.full((1,), y.shape[1] / 10),
    "full_like_width": lambda y: y * torch.full_like(y, y.shape[1] / 10),
    "fill_read_twice": _fill_twice,
    "tensor_of_width": lambda y: y * torch.tensor(float(y.shape[1])),
    "tensor_by_keyword": lambda y: y * torch.tensor(data=float(y.shape[1])),
    "new_tensor_of_width": lambda y: y * y.new_tensor([y.shape[1] / 10]),
    "old_tensor_of_width": lambda y: y * y.new([y.shape[1] / 10]),
    "numpy_of_width": lambda y: y * torch.from_numpy(np.full(1, y.shape[1] / 10, dtype=np.float32)).to(y),
    "numpy_scalar": lambda y: y * np.float32(y.shape[1] / 10),
    "numpy_long": lambda y: y * torch.tensor(np.where(np.arange(3000) == 1500, y.shape[1], 1.0))[1500].to(y),
    "legacy_constructor": lambda y: y * torch.Tensor([y.shape[1] / 10]).to(y),
    "masked_value": lambda y: y.masked_fill(y > 0.2, 1 / y.shape[1]),
    "where_value": lambda y: torch.where(y > 0, y, 1 / y.shape[1]),
    "set_item": _set_item,
    "threshold": lambda y: F.threshold(y, 4 / y.shape[1], -1.0),
    "batch_norm_eps": lambda y: F.batch_norm(y, y[0] * 0, y[0] * 0 + 1, eps=8 / y.shape[1]),
    "layer_norm_eps": lambda y: F.layer_norm(y, (y.shape[1],), eps=8 / y.shape[1]),
    "normalize_eps": lambda y: F.normalize(y, eps=y.shape[1] / 2.0),
    "pad_value": lambda y: F.pad(y, (0, 4), value=y.shape[1] / 10),
    "addmm_alpha": lambda y: torch.addmm(y, y.mean(1, keepdim=True).expand(-1, 2), y[:2], alpha=1 / y.shape[1]),
    "baddbmm_alpha": lambda y: torch.baddbmm(y[None], y[None, :, :1].expand(1, -1, 2), y[None, :2], alpha=1 / y.shape[1])[0],
    "arange_values": lambda y: torch.cat((y, (torch.arange(0, 8 * y.shape[1], y.shape[1]) / 100).expand(y.shape[0], 8)), 1),
    "linspace_values": lambda y: torch.cat((y, torch.linspace(0, y.shape[1] / 10, 8).expand(y.shape[0], 8)), 1),
    "norm_order": lambda y: torch.cat((y, torch.linalg.vector_norm(y, y.shape[1] / 16, 1, keepdim=True)), 1),
    "smallest_norm": lambda y: torch.cat((y, torch.linalg.vector_norm(y, -1.0, 1, keepdim=True)), 1),
    "variance_correction": lambda y: torch.cat((y, y.var(0, correction=y.shape[1] // 40, keepdim=True).expand_as(y)), 1),
    "rounded_decimals": lambda y: torch.round(y * 10, decimals=y.shape[1] // 20),
    "quantile": lambda y: torch.cat((y, torch.quantile(y, 8 / y.shape[1], 1, keepdim=True)), 1),
    "swapped_branches": _swap_branches,
    "other_half": _other_half,
    "in_place_scale": _in_place_scale,
}

POSITIONS: dict[str, Fn] = {
    "slice_from_middle": lambda y: torch.cat((y, y[:, y.shape[1] // 2 :].cos()), 1),
    "slice_literal_start": lambda y: torch.cat((y, y[:, 8:].cos()), 1),
    "slice_from_end": lambda y: y[:, -12:],
    "slice_to_end": lambda y: y[:, :-12],
    "slice_past_end": lambda y: y[:, 4:99],
    "slice_odd_step": lambda y: y[:, 1::3],
    "slice_other_axis": lambda y: torch.cat((y, _SPATIAL[y.shape[1] // 4 : y.shape[1] // 4 + 8].expand(y.shape[0], 8)), 1),
    "narrow_literal": lambda y: y.narrow(1, 5, 20),
    "narrow_from_end": lambda y: y.narrow(1, -20, 20),
    "narrow_other_axis": lambda y: torch.cat((y, _SPATIAL.narrow(0, y.shape[1] // 4, 8).expand(y.shape[0], 8)), 1),
    "select_literal": lambda y: torch.cat((y.cos(), y[:, 9, None]), 1),
    "select_from_end": lambda y: torch.cat((y.cos(), y[:, -3, None]), 1),
    "select_middle": lambda y: torch.cat((y.cos(), y[:, y.shape[1] // 2, None]), 1),
    "select_other_axis": lambda y: y * _SPATIAL[y.shape[1] // 2],
    "interleaved_start": lambda y: y.repeat_interleave(4, 1)[:, 1::4],
    "interleaved_other_step": lambda y: y.repeat_interleave(4, 1)[:, 1::3],
    "rolled_literal": lambda y: torch.roll(y, 5, 1),
    "rolled_width": lambda y: torch.roll(y, y.shape[1] // 4, 1),
    "rolled_back": lambda y: torch.roll(y, -9, 1),
    "rolled_far": lambda y: torch.roll(y, 40, 1),
    "rolled_flat": lambda y: torch.roll(y, 3),
    "rolled_other_axis": lambda y: torch.cat((y, torch.roll(_SPATIAL, y.shape[1] // 8, 0).expand(y.shape[0], 24)), 1),
    "flipped": lambda y: torch.cat((y, y.flip(1)), 1),
    "rotated": lambda y: torch.rot90(y.reshape(y.shape[0], 2, -1), 1, (0, 1)).transpose(0, 1).flatten(1),
    "index_literal": lambda y: y[:, [3, 1, 17, 30, 8, 8, 2, 25]],
    "index_computed": lambda y: y[:, torch.arange(y.shape[1] - 1, -1, -2)],
    "index_select_literal": lambda y: y.index_select(1, torch.tensor([3, 1, 17, 30, 8, 8, 2, 25])),
    "index_by_width": lambda y: y[:, torch.arange(8) * (y.shape[1] // 8)],
    "gathered": lambda y: y.gather(1, torch.arange(8).expand(y.shape[0], 8) * 3),
    "take_along": lambda y: torch.take_along_dim(y, torch.arange(8)[None] * 3, 1),
    "taken_flat": lambda y: torch.take(y, torch.arange(16) * 2).expand(y.shape[0], 16),
    "put": lambda y: y.index_copy(1, torch.tensor([1, 5]), y[:, :2].cos()),
    "added_at": lambda y: y.index_add(1, torch.tensor([1, 5]), y[:, 7:9].cos()),
    "scattered": lambda y: y.scatter(1, torch.arange(4).expand(y.shape[0], 4), y[:, 4:8].cos()),
    "boolean_mask": lambda y: y[:, torch.arange(WIDTH) % 3 == 0],
    "unfolded": lambda y: y.unfold(1, 8, 4).mean(-1),
    "strided_memory": lambda y: torch.as_strided(y.contiguous(), (y.shape[0], 8), (8, 1), 2),
    "strided_view": lambda y: torch.cat((y.cos(), torch.as_strided(y[:, :4], (y.shape[0], 8), (8, 1))), 1),
    "diagonal": lambda y: torch.diagonal(y.unsqueeze(1) * y.unsqueeze(2), 1, 1, 2),
    "triangle": lambda y: (y.unsqueeze(1) * y.unsqueeze(2)).tril(y.shape[1] // 8).sum(2),
    "diag_embedded": lambda y: torch.diag_embed(y).sum(1),
    "top": lambda y: y.topk(8, 1).values,
    "top_by_width": lambda y: y.topk(y.shape[1] // 2, 1).values,
    "sorted": lambda y: y.sort(1).values,
    "sorted_stable": lambda y: torch.sort(y, dim=1, stable=True).values,
    "third_smallest": lambda y: torch.cat((y, y.kthvalue(3, 1, keepdim=True).values), 1),
    "kth_of_rows": lambda y: torch.cat((y, y.kthvalue(1, 0, keepdim=True).values.expand_as(y)), 1),
    "most_common": lambda y: torch.cat((y, y.round().mode(1, keepdim=True).values), 1),
    "argmax_number": lambda y: torch.cat((y, y.argmax(1, keepdim=True).to(y.dtype)), 1),
    "argmax_flat": lambda y: y * y.argmax().to(y.dtype),
    "maximum_and_place": lambda y: torch.cat((y, y.max(1, keepdim=True).indices.to(y.dtype)), 1),
    "summed_up": lambda y: y.cumsum(1),
    "running_maximum": lambda y: y.cummax(1).values,
    "differences": lambda y: y.diff(dim=1),
    "shuffled_by_width": lambda y: F.channel_shuffle(y[:, :, None, None], y.shape[1] // 8).flatten(1),
    "pixels": lambda y: F.pixel_shuffle(y[:, :, None, None], 2).flatten(1),
    "smoothed": lambda y: F.avg_pool1d(y[:, None], 4, 2).flatten(1),
    "response_norm": lambda y: F.local_response_norm(y[:, :, None], 5).flatten(1),
    "tiled": lambda y: y.tile(1, 2),
    "tiled_by_width": lambda y: torch.cat((y, y[:, :1].cos().repeat(1, 8)), 1),
    "repeated_rows": lambda y: y.repeat_interleave(torch.arange(WIDTH) % 3, 1, output_size=31),
    "padded_and_cut": lambda y: F.pad(y, (-3, 5)),
    "reflected": lambda y: F.pad(y, (3, 5), mode="reflect"),
    "embedded_arange": lambda y: y @ F.embedding(torch.arange(y.shape[1]), torch.linspace(0, 1, 640).view(WIDTH, 20)),
    "table_rows": lambda y: y @ torch.linspace(-1, 1, 640).view(WIDTH, 20)[: y.shape[1]],
    "ranked_weights": lambda y: y * torch.arange(y.shape[1]).to(y),
    "decaying_weights": lambda y: y * torch.linspace(1, 0, y.shape[1]),
    "one_hot_of_width": lambda y: torch.cat((y, F.one_hot(torch.arange(y.shape[0]), y.shape[1]).to(y)), 1),
    "tensor_split_at": lambda y: torch.cat([p.cos() for p in torch.tensor_split(y, (5, 11), 1)], 1),
    "chunks_by_width": lambda y: torch.cat([p.softmax(1) for p in y.chunk(y.shape[1] // 8, 1)], 1),
    "fourier": lambda y: torch.fft.rfft(y, dim=1).real,
    "convolved_along": lambda y: F.conv1d(y[:, None], torch.linspace(-1, 1, 5).view(1, 1, 5)).flatten(1),
    "vander": lambda y: torch.vander(y[:, 3], 8),
    "combinations": lambda y: y * torch.cartesian_prod(y[0, :4], y[0, 4:8]).mean(),
    "searched": lambda y: torch.bucketize(y, torch.linspace(-1, 1, 16)).to(y.dtype),
    "searched_sorted": lambda y: y * torch.searchsorted(y.sort(1).values, y[:, :1].contiguous()).to(y.dtype),
}

VALUES: dict[str, Fn] = {  # these read numbers off the tensors, so that only a run on real values shows what they do
    "numpy_flipped": lambda y: torch.from_numpy(y.numpy()[:, ::-1].copy()),
    "numpy_mean": lambda y: torch.cat((y, torch.from_numpy(y.numpy().mean(1, keepdims=True))), 1),
    "numpy_order": lambda y: y[:, torch.from_numpy(y.numpy()[0].argsort().copy())],
    "item_sum": lambda y: y * y.sum().item(),
    "item_mean": lambda y: y * y.mean(1)[0].item(),
    "item_place": lambda y: torch.cat((y, y[:, int(y[0].argmax()), None]), 1),
    "item_width": lambda y: y * (y[0].sigmoid() > 0).sum().item(),
    "listed": lambda y: torch.cat((y, torch.tensor(y[:, :4].tolist(), dtype=y.dtype).cos()), 1),
}

SIZES = {**NUMBERS, **POSITIONS, **VALUES}
assert len(SIZES) == len(NUMBERS) + len(POSITIONS) + len(VALUES)


def _net(fn: Fn) -> Callable[[], nn.Module]:
    return seeded(lambda: Between(fn))


CASES = {name: Case(build=_net(fn), inputs=normal((5, 8)), locked=frozenset({"c"})) for name, fn in SIZES.items()}
