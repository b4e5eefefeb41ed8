"""Sequential refit: each layer of the pruned network learns, from its own inputs, what the original layer answered.

In forward order, every weight that one call reads is replaced by the ridge regression of the original's pre-activation
outputs (kept channels only) on the pruned network's own inputs, with all layers before it refitted already. No labels,
no gradients; `pruning_core.observe.lockstep` lets one pass over the data suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning_core.arguments import conv_groups
from pruning_core.calibration import Calibration, generator
from pruning_core.compensation.regression import Rectified, Solution, regress
from pruning_core.compensation.report import Repair
from pruning_core.compensation.surroundings import Affine, Surroundings, surroundings
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import MAX_INPUTS, Gram, sample_rows
from pruning_core.observe.lockstep import Run
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Value
from pruning_core.twin import named_tensors

ROWS_PER_INPUT = 24  # of a regression
MIN_ROWS = 65_536
MAX_BYTES = 2**28  # of the rows that are held at once
HELD_OUT = 5  # every fifth row chooses the ridge and nothing else


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

    @property
    def answer(self) -> int:
        return self.behind.answer(self.call).index

    @property
    def matrix(self) -> Tensor:
        """[G, O, K]"""
        return self.call.to_matrix(self.weight.detach(), self.groups)

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
    batches = list(calibration)
    answers = [job.answer for job in jobs]
    teachers = [Run(original, b.inputs, trace, [answer + 1 for answer in answers], answers) for b in batches]
    stops, holds = [job.call.op.index for job in jobs], [job.behind.other_made_by for job in jobs if job.behind.addition]
    students = [Run(pruned, b.inputs, trace, stops, holds) for b in batches]
    try:
        found: list[Repair] = []
        for number, job in enumerate(jobs):
            repair = _refit_one(job, teachers, students, prediction, generator(seed + number))
            found += [repair] if repair else []
            later = jobs[number + 1 :]
            _forget(teachers, {other.answer for other in later})
            _forget(students, {other.behind.other_made_by for other in later})
        return tuple(found)
    finally:
        for run in (*teachers, *students):
            run.end()


def _forget(runs: Sequence[Run], needed: set[int]) -> None:
    for run in runs:
        for call in [call for call in run.held if call not in needed]:
            del run.held[call]


def _refit_one(
    job: _Job, teachers: Sequence[Run], students: Sequence[Run], prediction: Prediction, rng: torch.Generator
) -> Repair | None:
    call, before = job.call, job.matrix
    inputs = before.shape[2]
    rows_wanted = min(max(MIN_ROWS, ROWS_PER_INPUT * inputs), MAX_BYTES // (4 * inputs * job.groups))
    share = rows_wanted // len(teachers) + 1
    learn, check, seen = Gram(), Gram(), 0
    rectified: tuple[list[Rectified], list[Rectified]] = ([], [])
    for teacher, student in zip(teachers, students, strict=True):
        teacher.advance_to(job.answer + 1)
        student.advance_to(call.op.index)
        x, answer = call.input_of(student.args), job.behind.answer(call)
        y = kept_entries(teacher.result(answer.index), answer.outputs()[0], prediction)
        if not student.args or not call.fits(x, y):
            continue
        rows = sample_rows(y.numel() // y.shape[call.channel_axis], share, rng)
        x_rows = call.input_rows(x, tuple(job.weight.shape), job.groups, rows).float().cpu()
        y_rows = call.output_rows(y, rows).float().cpu()
        base_rows = job.affine.shift[None]
        if job.behind.addition is not None:  # ask for what is missing in the sum
            base_rows = base_rows + call.output_rows(student.result(job.behind.other_made_by), rows).float().cpu()
            y_rows = (y_rows - base_rows) / job.affine.slope
        elif job.scale is not None:
            y_rows = y_rows * job.scale
        y_rows, base_rows = job.by_group(y_rows), job.by_group(base_rows)
        held = (torch.arange(len(rows)) + seen) % HELD_OUT == HELD_OUT - 1
        seen += len(rows)
        for gram, kept, part in ((learn, rectified[0], ~held), (check, rectified[1], held)):
            if bool(part.any()):
                gram.add(x_rows[:, part], y_rows[:, part])
            if job.behind.relu and bool(part.any()):
                shift = base_rows[:, part] if job.behind.addition is not None else base_rows
                slope = job.affine.slope.view(job.groups, 1, -1)
                kept.append(Rectified(x_rows[:, part], y_rows[:, part], slope, shift))
    if not check.rows:  # too little data to learn anything from: it stays as it is
        return None
    start = before.transpose(1, 2).double().cpu()
    if job.bias is not None or job.mean is not None:
        constant = torch.zeros(job.groups, 1, start.shape[2], dtype=torch.float64)
        if job.bias is not None:
            constant = job.bias.detach().double().cpu().view(job.groups, 1, -1)
        start = torch.cat([start, constant], dim=1)
    solution = regress(learn, check, start, *rectified)
    _write(job, solution, inputs)
    energy = max(solution.energy, 1e-30)
    return Repair(call.weight, learn.rows + check.rows, solution.ridge, solution.before / energy, solution.after / energy)


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
    readers: dict[int, list[Op]] = {}
    for op in trace.ops:
        for value in op.inputs():
            readers.setdefault(value.index, []).append(op)
    changed = first_change(prediction)
    found: list[_Job] = []
    for call in layer_calls(trace):
        weight = named[call.weight]
        if not call.only or not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            continue
        if call.op.index < changed and not any(r.tensor == call.weight for r in rescales):
            continue
        groups = 1 if call.kind == "linear" else conv_groups(prediction, call.op)[2]
        if call.to_matrix(weight.detach(), groups).shape[2] > MAX_INPUTS:
            continue
        scale = _scale(call, prediction, rescales)
        behind = surroundings(call, trace, readers)
        if scale is not None:
            behind = Surroundings(None, None, -1, False)
        mean = None
        if call.bias is None and behind.norm is not None and isinstance(behind.norm.args[3], Value):
            statistic = behind.norm.args[3].index
            mean = named[names[statistic]] if len(readers[statistic]) == 1 else None
        channels = prediction.shape(call.output)[call.channel_axis]
        affine = Affine.of(behind.norm, named, names, channels)
        bias = named[call.bias] if call.bias else None
        found.append(_Job(call, weight, bias, mean, scale, behind, affine, groups))
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
