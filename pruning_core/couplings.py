"""Which slices of which parameters are one channel: what a penalty that prepares a cut has to know."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.inputs import ExampleInputs
from pruning_core.modes import in_default_modes
from pruning_core.study import study


@dataclass(frozen=True, slots=True)
class ChannelSlice:
    """An axis of a parameter on which a coupling has positions."""

    parameter: str  # as in `model.named_parameters()`
    axis: int
    channel_of: tuple[int, ...]  # of each position of the axis; -1 where it belongs to no channel of this coupling


@dataclass(frozen=True, slots=True)
class Coupling:
    """Channels that can only be cut together across layers: slice c of every member is channel c."""

    name: str
    layers: tuple[str, ...]  # whose output width this is
    channels: int
    slices: tuple[ChannelSlice, ...]


@in_default_modes
def couplings(model: nn.Module, example_inputs: object) -> tuple[Coupling, ...]:
    """Every prunable group of channels, with all slices that a cut of it takes away from the model's parameters.

    That is the output side of the layers that make the channels, biases, scales of norms, and the input side of the
    layers that read them. Locked groups are left out. Raises: ModelError when the model cannot be run on the example
    inputs. The model is not changed.
    """
    subject = study(model, ExampleInputs.of(example_inputs))
    parameters = {name for name, p in model.named_parameters() if p.is_floating_point() or p.is_complex()}
    found: list[Coupling] = []
    for group in channel_groups(resolve(subject.trace, Decisions())):
        slices = tuple(
            ChannelSlice(member.tensor, member.axis, tuple(member.channel_of[: member.width].tolist()))
            for member in group.members
            if member.tensor in parameters
        )
        if slices and not group.reason:
            found.append(Coupling(group.name, group.layers, group.channels, slices))
    return tuple(found)
