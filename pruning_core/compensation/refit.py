"""Sequential refit: each layer of the pruned network learns, from its own inputs, what the original layer answered.

In forward order, every weight that one call reads is replaced by the ridge regression of the original's pre-activation
outputs (kept channels only) on the pruned network's own inputs, with all layers before it refitted already. No labels,
no gradients; `pruning_core.observe.lockstep` lets one pass over the data suffice. Rows, matrices and the runs' feature
maps share MEMORY: a layer that has large maps, and with them many rows per sample, learns from fewer samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pruning_core.arguments import conv_groups
from pruning_core.calibration import Calibration, generator
from pruning_core.compensation.regression import Solution
from pruning_core.compensation.report import Repair
from pruning_core.compensation.rows import Rows
from pruning_core.compensation.surroundings import Affine, Surroundings, mean_behind, readers_of, surroundings
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import sample_rows
from pruning_core.observe.lockstep import Lockstep, Stop
from pruning_core.observe.pieces import pieces
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Value
from pruning_core.twin import named_tensors

ROWS_PER_INPUT = 24  # of a regression
MIN_ROWS = 65_536
MAX_BYTES = 2**28  # of the rows that are held at once
MEMORY = 9 * 2**26  # bytes of a layer's rows and matrices, and of the runs that they are taken from
MATRICES = {"plain": 3, "relu": 2, "whole": 4}  # of a layer that are alive at once: sums (two, one, two), copies, a factor


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A layer of the pruned model that can be refitted."""

    call: LayerCall
    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None  # of the BatchNorm behind it, which takes the constant where there is no bias
    scale: Tensor | None  # [O] what the plan multiplies the outputs with, to undo a changed constant
    behind: Surroundings
    affine: Affine
    groups: int
    positions: float  # rows that a sample brings

    @property
    def answer(self) -> int:
        return self.behind.answer(self.call).index

    @property
    def matrix(self) -> Tensor:
        """[G, O, K]"""
        return self.call.to_matrix(self.weight.detach(), self.groups)

    @property
    def inputs(self) -> int:
        """Of one group."""
        return self.matrix.shape[2]

    @property
    def constant(self) -> Tensor | None:
        """[G, 1, O], where there is one or something that takes it."""
        if self.bias is None:
            return None if self.mean is None else torch.zeros(self.groups, 1, self.matrix.shape[1])
        return self.bias.detach().float().cpu().view(self.groups, 1, -1)

    def rows_of(self, available: int) -> int:
        """How many rows a regression gets."""
        wanted = max(MIN_ROWS, ROWS_PER_INPUT * self.inputs)
        return min(available, wanted, MAX_BYTES // (4 * self.inputs * self.groups))

    def is_wide(self, available: int) -> bool:
        """Whether rows with each other take less than inputs with each other."""
        return self.rows_of(available) < self.inputs

    def bytes_for(self, samples: int) -> int:
        """What a regression takes with the rows of so many samples."""
        groups, outputs, inputs = self.matrix.shape
        rows = self.rows_of(int(samples * self.positions))
        size = min(rows, inputs) + 1
        matrices = MATRICES["whole" if rows < inputs else "relu" if self.behind.relu else "plain"]
        return 4 * rows * groups * (inputs + 2 * outputs) + 8 * matrices * groups * size * size

    def by_group(self, rows: Tensor) -> Tensor:
        """[N, channels] -> [G, N, O]"""
        return rows.reshape(len(rows), self.groups, -1).transpose(0, 1)


def refit(
    original: nn.Module,
    pruned: nn.Module,
    prediction: Prediction,
    rescales: Sequence[Rescale],
    calibration: Calibration,
    seed: int = 0,
) -> tuple[Repair, ...]:
    """Refit the weights of `pruned` in place. Both are the engine's own copies, in evaluation mode.

    Raises: ModelError when a model makes other calls on the calibration data than on the example inputs.
    """
    trace = prediction.analysis.trace
    jobs = _jobs(pruned, prediction, rescales)
    stops = [Stop(job.answer, job.call.op.index, job.behind.other_made_by if job.behind.addition else -1) for job in jobs]
    parts = list(pieces(calibration, trace))

    def room(number: int, samples: int) -> int:
        return MEMORY - jobs[number].bytes_for(samples)

    found: list[Repair] = []
    with Lockstep(original, pruned, trace, stops, parts, room) as lockstep:
        for number, job in enumerate(jobs):
            repair = _refit_one(job, lockstep, number, prediction, generator(seed + number))
            found += [repair] if repair else []
    return tuple(found)


def _refit_one(job: _Job, lockstep: Lockstep, number: int, prediction: Prediction, rng: torch.Generator) -> Repair | None:
    call, before = job.call, job.matrix
    found: Rows | None = None
    for pair in lockstep.at(number):
        x, answer = call.input_of(pair.student.args), job.behind.answer(call)
        y = kept_entries(pair.teacher.result(answer.index), answer.outputs()[0], prediction)
        if not call.fits(x, y):
            continue
        count = y.numel() // y.shape[call.channel_axis]
        expected = count * lockstep.samples // len(pair.piece)
        if found is None:
            found = Rows(job.groups, job.affine.slope, relu=job.behind.relu, whole=job.is_wide(expected))
        rows = sample_rows(count, job.rows_of(expected) * len(pair.piece) // lockstep.samples + 1, rng)
        x_rows = call.input_rows(x, tuple(job.weight.shape), job.groups, rows).float().cpu()
        y_rows = call.output_rows(y, rows).float().cpu()
        base_rows = job.affine.shift[None]
        if job.behind.addition is not None:  # ask for what is missing in the sum
            base_rows = base_rows + call.output_rows(pair.student.result(job.behind.other_made_by), rows).float().cpu()
            y_rows = (y_rows - base_rows) / job.affine.slope
        elif job.scale is not None:
            y_rows = y_rows * job.scale
        y_groups, base_groups = job.by_group(y_rows), job.by_group(base_rows)
        if bool(job.affine.weak.any()):
            weak = job.affine.weak.view(job.groups, 1, -1)
            own = x_rows @ before.transpose(1, 2).float().cpu() + (0 if job.constant is None else job.constant)  # [G, N, O]
            y_groups, base_groups = y_groups.where(~weak, own), base_groups.where(~weak, 0.0)
        found.add(x_rows, y_groups, base_groups)
    solution = found.solve(before.transpose(1, 2).cpu(), job.constant) if found else None
    if found is None or solution is None:  # too little data to learn anything from: it stays as it is
        return None
    if not bool(solution.weight.to(job.weight.dtype).isfinite().all()):  # half precision ends at 65,504
        solution = replace(solution, ridge=float("inf"), after=solution.before)
    _write(job, solution, before.shape[2])
    energy = max(solution.energy, 1e-30)
    inputs = job.groups * before.shape[2]
    errors = solution.before / energy, solution.after / energy
    return Repair(call.weight, found.seen, solution.ridge, *errors, inputs, found.constant)


def _write(job: _Job, solution: Solution, inputs: int) -> None:
    if solution.ridge == float("inf"):
        return
    matrix = solution.weight[:, :inputs].transpose(1, 2)
    job.weight.data.copy_(job.call.from_matrix(matrix, tuple(job.weight.shape)))
    if solution.weight.shape[1] > inputs:
        constant = solution.weight[:, inputs].reshape(-1)
        if job.bias is not None:
            job.bias.data.copy_(constant)
        elif job.mean is not None:
            job.mean.data -= constant.to(job.mean)


def _jobs(pruned: nn.Module, prediction: Prediction, rescales: Sequence[Rescale]) -> list[_Job]:
    trace = prediction.analysis.trace
    named = named_tensors(pruned)
    names = {value.index: name for name, value in trace.tensors.items()}
    readers = readers_of(trace)
    changed = first_change(prediction)
    samples = next((value.shape[0] for value in trace.inputs if value.shape), 1)
    found: list[_Job] = []
    for call in layer_calls(trace):
        weight = named[call.weight]
        if not call.only or not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            continue
        if call.op.index < changed and not any(r.tensor == call.weight for r in rescales):
            continue
        groups = 1 if call.kind == "linear" else conv_groups(prediction, call.op)[2]
        scale = _scale(call, prediction, rescales)
        behind = surroundings(call, trace, readers)
        if scale is not None:
            behind = Surroundings(None, None, -1, False)
        mean = mean_behind(call, behind, named, names, readers)
        channels = prediction.shape(call.output)[call.channel_axis]
        affine = Affine.of(behind.norm, named, names, channels, summand=behind.addition is not None)
        bias = named[call.bias] if call.bias else None
        positions = math.prod(call.positions(call.output.shape)) / samples
        found.append(_Job(call, weight, bias, mean, scale, behind, affine, groups, positions))
    return found


def first_change(prediction: Prediction) -> int:
    """The first call of which the cut changes a size: what runs before it answers as it did and needs no repair."""
    for op in prediction.analysis.trace.ops:
        if any(prediction.shape(value) != value.shape for value in (*op.inputs(), *op.outputs())):
            return op.index
    return len(prediction.analysis.trace.ops)


def _scale(call: LayerCall, prediction: Prediction, rescales: Sequence[Rescale]) -> Tensor | None:
    mine = [r for r in rescales if r.tensor == call.weight and r.axis == call.out_axis]
    if not mine:
        return None
    ids = prediction.analysis.tensor_axes(call.weight)[call.out_axis]
    scale = torch.ones(len(ids))
    for rescale in mine:
        scale[list(rescale.positions)] *= rescale.factor
    return scale[list(prediction.kept(ids))]


def kept_entries(tensor: Tensor, value: Value, prediction: Prediction) -> Tensor:
    """A tensor of the original with the planned positions only."""
    for axis, ids in enumerate(prediction.analysis.axes[value.index]):
        keep = prediction.kept(ids)
        if len(keep) < len(ids):
            tensor = tensor.index_select(axis, torch.tensor(keep, device=tensor.device))
    return tensor
