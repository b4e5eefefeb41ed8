"""What the repair cannot mend: the damage of each channel of each group, comparable over the whole model.

Inside a group, `criteria.elimination` says in which order the channels go. Each kernel position of a consumer counts as
an input there, as in the refit, up to a limit (`observe.moments`); of wider consumers each channel does. What the
groups cost each other is measured where it counts, at the model's outputs: for several numbers of removed channels the
repaired change of the consumers' weights is multiplied with the per-sample gradients of the outputs (a Gauss-Newton
estimate of the squared change of the outputs, without labels), of samples that the repair has not seen. Where the model
cannot be differentiated, the consumers' own relative errors stand in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core import tree
from pruning_core.calibration import Batch, Calibration, generator
from pruning_core.coupling.groups import ChannelGroup, Member
from pruning_core.criteria.consumers import Consumer, consumers
from pruning_core.criteria.elimination import HAIR, TINY, Reader, eliminate, repair, with_common_constant
from pruning_core.criteria.table import ChannelView, criterion, missing, without_data
from pruning_core.inputs import ExampleInputs
from pruning_core.normalizers import Scores
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import Gram
from pruning_core.observe.memory import give_back
from pruning_core.observe.reading import singles
from pruning_core.slices import rows_of
from pruning_core.trace import Trace, call_model, quiet_kernels
from pruning_core.twin import named_tensors
from pruning_core.writes import own_copy

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 0.875)  # of a group's channels: where its damage is measured
SAMPLES = 96  # whose gradients are taken, one by one
SPREAD = 16  # samples that tell how far the outputs vary
ENTRIES = 2**20  # of a weight that are widened at a time


@criterion(needs={"damage"})
def reconstruction(view: ChannelView) -> Tensor:
    """The error that removing a channel leaves after the best linear repair: [C] >= 0; see `by_elimination`.

    Raises: SpecError without calibration data.
    """
    if view.damage_C is None:
        raise missing("reconstruction", "what each removal damages", view, without_data("l2_norm"))
    return view.damage_C.float()


@dataclass(slots=True, eq=False)
class _Change:
    """What happens to one consumer's weight when some channels of a group are gone and the others are repaired.

    [F, entries] for FRACTIONS; half the memory of single precision, and what is summed over thousands of entries needs
    no more.
    """

    call: LayerCall
    weight: Tensor
    bias: Tensor | None

    def effect(self, gradients: Mapping[str, Tensor | None]) -> Tensor:
        """[F]: by how much the change moves what the gradients are of, to first order."""
        found = torch.zeros(len(FRACTIONS), dtype=torch.float64)
        for name, changes in ((self.call.weight, self.weight), (self.call.bias, self.bias)):
            gradient = gradients.get(name) if name else None
            if gradient is None or changes is None:
                continue
            flat = gradient.detach().float().cpu().flatten()
            for start in range(0, len(flat), ENTRIES):
                part = slice(start, start + ENTRIES)
                found += changes[:, part].float() @ flat[part]
        return found


@dataclass(slots=True, eq=False)
class _Group:
    damage: Tensor  # [C] by elimination
    changes: list[_Change]
    squares: Tensor = field(default_factory=lambda: torch.zeros(len(FRACTIONS), dtype=torch.float64))


def by_elimination(
    groups: Sequence[ChannelGroup], trace: Trace, grams: Mapping[int, Gram], tensors: Mapping[str, Tensor]
) -> dict[str, Scores]:
    """Group -> [C] damage in units of its consumers' output energy. Groups that no layer reads are left out."""
    calls = layer_calls(trace)
    found: dict[str, Scores] = {}
    for group in groups:
        readers = [
            reader
            for consumer in consumers(group, calls)
            if consumer.call.op.index in grams
            for reader in _readers(consumer, grams[consumer.call.op.index], tensors)
        ]
        if readers:
            found[group.name] = eliminate(readers, group.channels).numpy()
    return found


def _taps(call: LayerCall, gram: Gram) -> int:
    """Kernel positions that the Gram matrix counts as inputs of their own."""
    return (gram.xx.shape[1] - 1) // call.inputs


def _readers(consumer: Consumer, gram: Gram, tensors: Mapping[str, Tensor]) -> list[Reader]:
    call = consumer.call
    moment, taps = gram.xx / gram.rows, _taps(call, gram)
    weight = _by_input(call, tensors[call.weight], taps)  # [G, I, R]
    energy = torch.einsum("gir,gij,gjr->", weight, moment[:, :-1, :-1], weight).clamp_min(1e-30)
    with_constant = torch.cat([weight / energy.sqrt(), torch.zeros_like(weight[:, :1])], dim=1)
    return [
        Reader(moment[p.groups], with_constant[p.groups], p.members(taps), constant=True, channels=p.channels)
        for p in consumer.parts
    ]


def _by_input(call: LayerCall, weight: Tensor, taps: int) -> Tensor:
    """[G, I, R]: the weight by input, outputs flattened, and kernel positions where they are no inputs (`taps` 1)."""
    weight = weight.detach().double().cpu()
    return call.to_matrix(weight, call.groups).transpose(1, 2) if taps > 1 else call.by_input(weight, call.groups)


def _as_weight(call: LayerCall, by_input: Tensor, shape: Sequence[int], taps: int) -> Tensor:
    """The inverse of `_by_input`."""
    if taps > 1:
        return call.from_matrix(by_input.transpose(1, 2), tuple(shape))
    return call.from_input(by_input, tuple(shape))


def at_the_outputs(
    groups: Sequence[ChannelGroup],
    eliminated: Mapping[str, Scores],
    model: nn.Module,
    trace: Trace,
    grams: Mapping[int, Gram],
    calibration: Calibration,
    seed: int = 0,
    *,
    samples: int = SAMPLES,
) -> dict[str, Scores] | None:
    """Group -> [C] damage in units of the outputs' variance; None where the model cannot be differentiated.

    `model` is a copy of the engine's own. `samples`: whose gradients are taken; best those that have no part in `grams`, for
    a repair looks better than it is where it was learned (a VGG-like net's first linear layer has 1,152 inputs, and 1,024
    images bring it one row each: beside all others its channels looked 20 times too cheap). A group that no layer reads
    (the keys of an attention) is judged by what its own rows do to the outputs: sum_r w g per channel and sample.
    """
    named = {name: t for name, t in named_tensors(model).items() if isinstance(t, nn.Parameter) and t.is_floating_point()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    calls = [call for call in layer_calls(trace) if call.weight in named]
    states = {
        group.name: _changed(group, torch.from_numpy(eliminated[group.name]), calls, grams, named)
        for group in groups
        if group.name in eliminated
    }
    alone = {group.name: _rows_of(group, named) for group in groups if group.name not in eliminated}
    give_back()  # what solving for the changes has left scattered
    effects: dict[str, list[Tensor]] = {name: [] for name in alone}
    seen = 0
    try:
        for gradients in _sample_gradients(model, named, calibration, samples, seed):
            seen += 1
            for state in states.values():
                total = sum((change.effect(gradients) for change in state.changes), torch.zeros(len(FRACTIONS)))
                state.squares += total.double().square()
            for name, rows in alone.items():
                effects[name].append(_own_effect(rows, named, gradients))
    except _NotDifferentiable:
        return None
    found = {name: along_order(s.damage.numpy(), (s.squares / seen).numpy()) for name, s in states.items()}
    for name, sampled in effects.items():
        if sampled:
            found[name] = _curve_of_effects(torch.stack(sampled))
    return found


def _changed(
    group: ChannelGroup,
    damage: Tensor,
    calls: Sequence[LayerCall],
    grams: Mapping[int, Gram],
    named: Mapping[str, Tensor],
) -> _Group:
    order = damage.argsort(stable=True)
    found = []
    for consumer in consumers(group, calls):
        call = consumer.call
        gram = grams.get(call.op.index)
        if gram is None:
            continue
        taps = _taps(call, gram)
        moment, weight = gram.xx / gram.rows, named[call.weight]
        by_input = _by_input(call, weight, taps).float()
        size = moment.shape[1] - (call.bias is None)
        change = torch.empty(len(FRACTIONS), weight.numel(), dtype=torch.bfloat16)
        bias = named.get(call.bias or "")
        shift = None if bias is None else torch.zeros(len(FRACTIONS), bias.numel())
        for k, fraction in enumerate(FRACTIONS):
            gone = torch.zeros(group.channels, dtype=torch.bool)
            gone[order[: max(1, int(fraction * group.channels))]] = True
            moved = _moved(consumer, moment[:, :size, :size], by_input, gone, taps)
            change[k] = _as_weight(call, moved[:, : by_input.shape[1]], weight.shape, taps).flatten()
            if shift is not None:
                shift[k] = moved[:, -1].reshape(shift.shape[1], -1).sum(dim=1) * call.share_of_kernel
        found.append(_Change(call, change, shift))
    return _Group(damage, found)


def _moved(consumer: Consumer, moment: Tensor, by_input: Tensor, gone: Tensor, taps: int) -> Tensor:
    """[G, D, R]: how the weight of each input changes, and the constant where D counts one, once channels are `gone` [C].

    moment [G, D, D]; by_input [G, I, R].
    """
    constant = moment.shape[1] > by_input.shape[1]
    found = torch.zeros(len(moment), moment.shape[1], by_input.shape[2])
    for part in consumer.parts:
        inputs = part.members(taps)[gone[part.channels]].flatten().sort().values
        shares = _shares(moment[part.groups], inputs, constant)  # [G, gone, D]
        found[part.groups] = shares.transpose(1, 2) @ by_input[part.groups][:, inputs]
        if constant and consumer.call.share_of_kernel < 1:
            is_kept = torch.ones(moment.shape[1], dtype=torch.bool)
            is_kept[inputs] = False
            kept = is_kept.nonzero()[:, 0]
            kernel = math.prod(consumer.call.op.args[1].shape[2:])
            for g in part.groups.tolist():
                found[g, kept] = with_common_constant(found[g, kept], moment[g], kept[:-1], kernel)
    return found


def _shares(moment: Tensor, gone: Tensor, constant: bool) -> Tensor:
    """[G, gone, D]: what each input takes over from those that are gone, themselves with -1."""
    is_kept = torch.ones(moment.shape[1], dtype=torch.bool)
    is_kept[gone] = False
    kept = is_kept.nonzero()[:, 0]
    found = torch.zeros(len(moment), len(gone), moment.shape[1])
    for g, matrix in enumerate(moment):
        found[g][:, kept] = repair(matrix, gone, kept, constant).float()
    found[:, torch.arange(len(gone)), gone] = -1
    return found


class _NotDifferentiable(Exception):  # noqa: N818  a fact about the model, no error
    """Autograd cannot follow the model's forward."""


def _sample_gradients(
    model: nn.Module, named: Mapping[str, Tensor], calibration: Calibration, samples: int, seed: int
) -> Iterator[dict[str, Tensor | None]]:
    """For each of the first samples, the gradient of v . f(x) / std f with random signs v, by parameter.

    Raises: _NotDifferentiable.
    """
    rng = generator(seed)
    spread = _spread(model, calibration)
    for one in _first(calibration, samples):
        yield _gradient(model, named, one.inputs, spread, rng)


def _first(calibration: Calibration, count: int) -> Iterator[Batch]:
    """Single samples, so that what is found does not depend on the batches."""
    return itertools.islice((one for batch in calibration for one in singles(batch)), count)


def _spread(model: nn.Module, calibration: Calibration) -> list[Tensor]:
    """The standard deviation of each output tensor. Raises: _NotDifferentiable where no sample is taken alone."""
    try:
        with torch.no_grad():
            found = [list(tree.held(call_model(model, own_copy(one.inputs)))) for one in _first(calibration, SPREAD)]
        outputs = [torch.cat([t.detach().flatten() for t in same]) for same in zip(*found, strict=True)]
    except Exception as exc:  # the data as such is good: the model has run on its batches
        raise _NotDifferentiable from exc
    return [t.float().std().clamp_min(1e-12) if t.is_floating_point() else torch.ones(()) for t in outputs]


def _gradient(
    model: nn.Module, named: Mapping[str, Tensor], one: ExampleInputs, spread: Sequence[Tensor], rng: torch.Generator
) -> dict[str, Tensor | None]:
    with quiet_kernels(), torch.enable_grad():
        try:
            outputs = list(tree.held(call_model(model, own_copy(one))))
            parts = [
                (t.float() * _signs(t, rng)).sum() / s
                for t, s in zip(outputs, spread, strict=True)
                if t.is_floating_point() and t.requires_grad
            ]
            if not parts:
                raise _NotDifferentiable
            total = torch.stack(parts).sum()
            return dict(zip(named, torch.autograd.grad(total, list(named.values()), allow_unused=True), strict=True))
        except Exception as exc:  # an operator without a derivative, or single samples that the model does not take
            raise _NotDifferentiable from exc


def _signs(t: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randint(0, 2, t.shape, generator=rng).to(t.device) * 2.0 - 1.0


def _rows_of(group: ChannelGroup, named: Mapping[str, Tensor]) -> list[tuple[Member, Tensor]]:
    members = [m for m in group.members if m.produces and m.tensor in named and named[m.tensor].ndim > 1]
    return [(m, torch.from_numpy(m.channel_of)) for m in members]


def _own_effect(
    rows: Sequence[tuple[Member, Tensor]], named: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]
) -> Tensor:
    total = torch.zeros(max((int(c.max()) for _, c in rows), default=0) + 1, dtype=torch.float64)
    for member, channel_of in rows:
        gradient = gradients.get(member.tensor)
        if gradient is not None:
            product = named[member.tensor].detach() * gradient
            by_row = rows_of(product, member.axis, member.blocks).sum(dim=1).double().cpu()
            inside = channel_of >= 0
            total.index_add_(0, channel_of[inside], by_row[inside])
    return total


def _curve_of_effects(sampled: Tensor) -> Scores:
    """[N, C] effects of single channels -> [C] marginal damages, the joint effect of several measured like the others."""
    damage = sampled.square().mean(dim=0)
    order = damage.argsort(stable=True)
    points = [float(sampled[:, order[: max(1, int(f * len(order)))]].sum(dim=1).square().mean()) for f in FRACTIONS]
    return along_order(damage.numpy(), np.array(points))


def along_order(damage: Scores, points: Scores) -> Scores:
    """Marginal damages whose order is that of `damage` [C] and whose sums pass near `points` at FRACTIONS.

    Between the points the sum grows geometrically; marginals never fall, so that a sum of the smallest is the curve.
    Equal ones differ by a hair, or ties would be broken against the order.
    """
    n = len(damage)
    at = np.array([0, *(max(1, int(f * n)) for f in FRACTIONS)])
    total = np.maximum.accumulate(np.concatenate([[0.0], points]))
    small = max(total.max() * 1e-9, 1e-30)
    last = total[-1] * max(total[-1] / max(total[-2], small), 1.0) + small
    at, first = np.unique(np.append(at, n), return_index=True)
    sums = np.exp(np.interp(np.arange(n + 1), at, np.log(np.append(total, last)[first] + small))) - small
    marginal = np.maximum.accumulate(np.maximum(np.diff(sums), 0.0))
    marginal = marginal * (1 + HAIR * np.arange(n)) + TINY * np.arange(n)
    found = np.empty(n)
    found[np.argsort(damage, kind="stable")] = marginal
    return found
