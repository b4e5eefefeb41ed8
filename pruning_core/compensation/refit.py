"""Sequential refit: each layer of the pruned network learns, from its own inputs, what the original layer answered.

In forward order, every weight that one call reads is replaced by the ridge regression of the original's pre-activation
outputs (kept channels only) on the pruned network's own inputs, with all layers before it refitted already. No labels,
no gradients; see `pruning_core.observe.lockstep` for how one pass over the data suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.arguments import conv_groups
from pruning_core.calibration import Calibration, generator
from pruning_core.compensation.feedback import Feedback, feedback_of, undo_norm
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import Gram, sample_rows
from pruning_core.observe.lockstep import Run
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Trace, Value
from pruning_core.twin import named_tensors

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # shares of the mean diagonal of the Gram matrix
ROWS_PER_INPUT = 24  # rows of a regression, per input of it
MIN_ROWS = 65_536
HELD_OUT = 5  # every fifth row chooses the ridge and nothing else


@dataclass(frozen=True, slots=True)
class Refitted:
    """What one layer gained: error as a share of the original output's energy, on rows that were held out."""

    layer: str
    rows: int
    ridge: float
    error_before: float
    error_after: float


@dataclass(slots=True, eq=False)
class _Job:
    call: LayerCall
    weight: Tensor  # of the pruned model
    bias: Tensor | None
    mean: Tensor | None  # running mean of the BatchNorm behind it, which takes the constant where there is no bias
    scale: Tensor | None  # [O] of the kept outputs
    feedback: Feedback | None
    relu: bool
    affine: Any
    nchan: int
    norm: tuple[Any, ...] | None  # gamma, beta, mean, variance, eps of the BatchNorm before the addition

    @property
    def answer(self) -> int:
        """The call of the original that says what this layer should answer."""
        return self.feedback.addition.index if self.feedback else self.call.op.index


def refit(
    original: nn.Module,
    pruned: nn.Module,
    prediction: Prediction,
    rescales: Sequence[Rescale],
    calibration: Calibration,
    seed: int = 0,
) -> tuple[Refitted, ...]:
    """Refit the weights of `pruned` in place. Both models are twins of the caller's, in evaluation mode."""
    trace = prediction.analysis.trace
    jobs = _jobs(pruned, prediction, rescales)
    batches = list(calibration)
    stops = [job.call.op.index for job in jobs]
    others = [job.feedback.made_by for job in jobs if job.feedback]
    answers = [job.answer for job in jobs]
    after = [answer + 1 for answer in answers]
    found: list[Refitted] = []
    teachers = [Run(original, batch.inputs, trace, after, answers) for batch in batches]
    students = [Run(pruned, batch.inputs, trace, stops, others) for batch in batches]
    try:
        for number, job in enumerate(jobs):
            found.append(_refit_one(job, teachers, students, prediction, generator(seed + number)))
    finally:
        for run in (*teachers, *students):
            run.end()
    return tuple(found)


def _refit_one(
    job: _Job, teachers: Sequence[Run], students: Sequence[Run], prediction: Prediction, rng: torch.Generator
) -> Refitted:
    call = job.call
    groups = 1 if call.kind == "linear" else conv_groups(prediction, call.op)[2]
    share = max(MIN_ROWS, ROWS_PER_INPUT * call.to_matrix(job.weight.detach(), groups).shape[2]) // len(teachers) + 1
    learn, check = Gram(), Gram()
    kept_rows: list[Any] = []
    for teacher, student in zip(teachers, students, strict=True):
        teacher.advance_to(job.answer + 1)
        student.advance_to(call.op.index)
        x = student.args[1 if call.op.name == "aten.addmm" else 0]
        y, other = _target(job, teacher, student, prediction)
        count = y.numel() // y.shape[call.channel_axis]
        rows = sample_rows(count, share, rng)
        x_rows = call.input_rows(x, tuple(job.weight.shape), groups, rows)
        y_rows = call.output_rows(y, rows).reshape(len(rows), groups, -1).transpose(0, 1)
        held = torch.arange(len(rows)) % HELD_OUT == HELD_OUT - 1
        learn.add(x_rows[:, ~held], y_rows[:, ~held])
        check.add(x_rows[:, held], y_rows[:, held])
        if job.relu:
            o_rows = call.output_rows(other, rows).reshape(len(rows), groups, -1).transpose(0, 1) if other is not None else None
            kept_rows.append((x_rows[:, ~held], y_rows[:, ~held], None if o_rows is None else o_rows[:, ~held]))
    return _solve(job, groups, learn, check, kept_rows)


def _target(job: _Job, teacher: Run, student: Run, prediction: Prediction) -> Any:
    """What the layer of the pruned network should answer, on its kept channels."""
    back = job.feedback
    if back is None:
        y = _kept(teacher.held[job.answer], job.call.output, prediction).float()
        if job.scale is not None:
            y = y * job.scale.view([-1] + [1] * (-1 - job.call.channel_axis))
    else:
        y = _kept(teacher.held[job.answer], back.addition.outputs()[0], prediction).float()
        other = student.held.pop(back.made_by).float()
        y = y - other
        if job.norm is not None:
            y = undo_norm(y, *job.norm, axis=job.call.channel_axis)
        return y, other
    return y, None


def _solve(job: _Job, groups: int, learn: Gram, check: Gram, rows: Any) -> Refitted:
    call = job.call
    before = call.to_matrix(job.weight.detach().double(), groups)  # [G, O, K]
    constant = torch.zeros(before.shape[:2], dtype=torch.float64)
    if job.bias is not None:
        constant = job.bias.detach().double().reshape(groups, -1)
    has_constant = job.bias is not None or job.mean is not None
    size = before.shape[2] + int(has_constant)
    start = torch.cat([before, constant[:, :, None]], dim=2)[:, :, :size].transpose(1, 2)  # [G, size, O]
    gram, target = learn.xx[:, :size, :size], learn.xy[:, :size]
    gap = target - gram @ start
    scale = gram.diagonal(dim1=1, dim2=2)[:, : before.shape[2]].mean(dim=1).clamp_min(1e-30)
    diagonal = torch.ones(size, dtype=torch.float64)
    if has_constant:
        diagonal[-1] = 1e-6  # the constant is hardly held back
    best: tuple[float, float, Tensor] | None = None
    base = _error(check, start, size)
    for ridge in RIDGES:
        system = gram + torch.diag_embed((ridge * scale)[:, None] * diagonal)
        solution = start + torch.cholesky_solve(gap, torch.linalg.cholesky(system))
        error = _error(check, solution, size)
        if best is None or error < best[0]:
            best = (error, ridge, solution)
    assert best is not None
    error, ridge, solution = best
    if rows and ROUNDS:
        system = gram + torch.diag_embed((ridge * scale)[:, None] * diagonal)
        factor = torch.linalg.cholesky(system)
        slope, shift = _affine(job)
        slope, shift = slope.view(groups, 1, -1), shift.view(groups, 1, -1)
        for _ in range(ROUNDS):
            cross = torch.zeros_like(target)
            w = solution.float()
            for x, y, other in rows:
                x1 = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)[:, :, :size]
                base_z = shift if other is None else shift + other
                z = (x1 @ w) * slope + base_z
                want = y * slope + base_z
                new = torch.where(want > 0, want, z.clamp(max=0))
                cross += (x1.transpose(1, 2) @ ((new - base_z) / slope)).double()
            solution = start + torch.cholesky_solve(cross - gram @ start, factor)
        error = 0.0
    energy = max(float(check.yy.sum()), 1e-30)
    if error < base:
        _write(job, groups, solution, before.shape[2])
    else:
        error, ridge = base, float("inf")
    return Refitted(call.weight, learn.rows + check.rows, ridge, base / energy, error / energy)


ROUNDS = 0


def _affine(job):
    axis = job.weight.shape[job.call.out_axis] if job.call.kind != 'transposed' else None
    n = job.nchan
    if job.affine is None:
        return torch.ones(n), torch.zeros(n)
    gamma, beta, mean, var, eps = job.affine
    slope = torch.rsqrt(var + eps)
    if gamma is not None:
        slope = slope * torch.where(gamma.abs() < 1e-6, 1e-6, gamma)
    shift = -mean * slope
    if beta is not None:
        shift = shift + beta
    return slope.detach(), shift.detach()


def _error(check: Gram, solution: Tensor, size: int) -> float:
    """Summed squared error of a solution [G, size, O] on the rows of a Gram matrix."""
    quadratic = (solution * (check.xx[:, :size, :size] @ solution)).sum()
    return float(quadratic - 2 * (solution * check.xy[:, :size]).sum() + check.yy.sum())


def _write(job: _Job, groups: int, solution: Tensor, width: int) -> None:
    matrix = solution[:, :width].transpose(1, 2)
    job.weight.data.copy_(job.call.from_matrix(matrix, tuple(job.weight.shape)))
    if solution.shape[1] > width:
        constant = solution[:, width].reshape(-1)
        if job.bias is not None:
            job.bias.data.copy_(constant)
        elif job.mean is not None:
            job.mean.data -= constant.to(job.mean.dtype)


def _jobs(pruned: nn.Module, prediction: Prediction, rescales: Sequence[Rescale]) -> list[_Job]:
    """The layers that can be refitted: their weight is a parameter that one call reads."""
    trace = prediction.analysis.trace
    named = named_tensors(pruned)
    means = _means(trace)
    names = {value.index: name for name, value in trace.tensors.items()}
    found: list[_Job] = []
    for call in layer_calls(trace):
        weight = named[call.weight]
        if not call.only or not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            continue
        mean = means.get(call.output.index) if call.bias is None else None
        scale = _scale(call, prediction, rescales)
        feedback = feedback_of(call, trace) if scale is None else None
        norm = None
        if feedback is not None and feedback.norm is not None:
            tensors = [named[names[a.index]] if isinstance(a, Value) else None for a in feedback.norm.args[1:5]]
            norm = (*tensors, feedback.norm.args[7])
        bias = named[call.bias] if call.bias else None
        relu, affine = False, norm
        from pruning_core.compensation.feedback import _next_reader
        if feedback is not None:
            nxt = _next_reader(trace, feedback.addition.outputs()[0], feedback.addition.index)
            relu = True if nxt is None else nxt.name in ('aten.relu', 'aten.relu_')
            cand = [op for op in trace.ops[feedback.addition.index+1:] if any(v.index == feedback.addition.outputs()[0].index for v in op.inputs())]
            relu = bool(cand) and cand[0].name in ('aten.relu', 'aten.relu_')
        else:
            nxt = _next_reader(trace, call.output, call.op.index)
            if nxt is not None and nxt.name == 'aten.batch_norm':
                tensors = [named[names[a.index]] if isinstance(a, Value) else None for a in nxt.args[1:5]]
                affine = (*tensors, nxt.args[7])
                nxt = _next_reader(trace, nxt.outputs()[0], nxt.index)
            relu = nxt is not None and nxt.name in ('aten.relu', 'aten.relu_')
        nchan = prediction.shape(call.output)[call.channel_axis]
        found.append(_Job(call, weight, bias, named[mean] if mean else None, scale, feedback, relu, affine, nchan, norm))
    return found


def _means(trace: Trace) -> dict[int, str]:
    """Value -> running mean of the BatchNorm that alone reads it."""
    names = {value.index: name for name, value in trace.tensors.items()}
    readers: dict[int, list[str]] = {}
    means: dict[int, str] = {}
    for op in trace.ops:
        for value in op.inputs():
            readers.setdefault(value.index, []).append(op.name)
        if op.name == "aten.batch_norm" and isinstance(op.args[3], Value) and op.args[3].index in names:
            means[op.args[0].index] = names[op.args[3].index]
    uses: dict[str, int] = {}
    for op in trace.ops:
        for value in op.inputs():
            if value.index in names:
                uses[names[value.index]] = uses.get(names[value.index], 0) + 1
    return {index: mean for index, mean in means.items() if len(readers[index]) == 1 and uses[mean] == 1}


def _scale(call: LayerCall, prediction: Prediction, rescales: Sequence[Rescale]) -> Tensor | None:
    """[O] of the kept outputs: what the plan multiplies them with to undo a changed constant."""
    mine = [r for r in rescales if r.tensor == call.weight and r.axis == call.out_axis]
    if not mine:
        return None
    ids = prediction.analysis.tensor_axes(call.weight)[call.out_axis]
    scale = torch.ones(len(ids))
    for rescale in mine:
        scale[list(rescale.positions)] *= rescale.factor
    return scale[list(prediction.kept(ids))]


def _kept(tensor: Tensor, value: Value, prediction: Prediction) -> Tensor:
    for axis, ids in enumerate(prediction.analysis.axes[value.index]):
        keep = prediction.kept(ids)
        if len(keep) < len(ids):
            tensor = tensor.index_select(axis, torch.tensor(keep))
    return tensor
