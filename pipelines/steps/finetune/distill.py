"""Learning from the source model: from its answers, and from its features where a cut left channels of them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

import pruning_core as pc
from pipelines.steps.finetune.options import DistillationOptions

Features = Mapping[str, Sequence[int]]  # layer -> the teacher's channels that the student has kept
CHANNEL_AXIS = {nn.Conv1d: 1, nn.Conv2d: 1, nn.Conv3d: 1, nn.Linear: -1}  # of the outputs
Loss = Callable[[Tensor, Tensor, float], Tensor]


def boundary_layers(plan: pc.PruningPlan, module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of each cut group the last layer that makes its channels, in the order of the modules, with the channels kept."""
    order = {name: number for number, (name, layer) in enumerate(module.named_modules()) if type(layer) in CHANNEL_AXIS}
    found = {}
    for cut in plan.cuts:
        kept = {layer: plan.rows_kept(f"{layer}.weight") for layer in cut.layers if layer in order}
        makers = {layer: rows for layer, rows in kept.items() if rows is not None}
        if makers:
            last = max(makers, key=lambda layer: order[layer])
            found[last] = makers[last]
    return found


class Teacher:
    """The source model and its share in the loss. No part of the module that learns; it never learns itself."""

    def __init__(self, module: nn.Module, options: DistillationOptions, loss: Loss, features: Features) -> None:
        self.module = module.eval().requires_grad_(False)
        self.options, self.loss = options, loss
        self.features = {name: torch.tensor(channels) for name, channels in features.items()} if options.features else {}

    def to(self, device: torch.device) -> None:
        self.module.to(device)
        self.features = {name: channels.to(device) for name, channels in self.features.items()}

    def share(self, epochs: float) -> float:
        """What is left of its weights after so many epochs: 1 at first."""
        return 1.0 if self.options.epochs is None else max(0.0, 1 - epochs / self.options.epochs)

    def teach(self, student: nn.Module, x: Tensor, label_loss: Callable[[Tensor], Tensor], share: float = 1.0) -> Tensor:
        """(1 - weight) x loss + weight x distance of the answers + features x distance of the features.

        `share`: of `weight` and `features` as they were asked for.
        """
        weight, features = share * self.options.weight, share * self.options.features
        if share == 0:
            return label_loss(student(x))
        with _Outputs(self.module, self.features) as taught, torch.no_grad():
            answers = self.module(x)
        with _Outputs(student, self.features) as learned:
            output = student(x)
        total = (1 - weight) * label_loss(output)
        if weight > 0:
            total = total + weight * self.loss(output, answers, self.options.temperature)
        if self.features:
            distances = [
                feature_distance(learned.outputs[name], taught.outputs[name].index_select(learned.axes[name], channels))
                for name, channels in self.features.items()
            ]
            total = total + features * torch.stack(distances).mean()
        return total


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """A scalar: mean squared distance of two tensors of one shape, over the teacher's mean square; 0 where they agree."""
    return (student - teacher).square().mean() / teacher.square().mean().clamp_min(torch.finfo(teacher.dtype).tiny)


class _Outputs:
    """Inside the `with`, what the named layers gave last."""

    def __init__(self, module: nn.Module, names: Mapping[str, object]) -> None:
        self.layers = {name: module.get_submodule(name) for name in names}
        self.axes = {name: CHANNEL_AXIS[type(layer)] for name, layer in self.layers.items()}
        self.outputs: dict[str, Tensor] = {}
        self.handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "_Outputs":
        for name, layer in self.layers.items():
            self.handles.append(layer.register_forward_hook(self._keeper(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            self.outputs[name] = output

        return keep
