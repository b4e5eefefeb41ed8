"""An exported program (.pt2) as a module that trains: no class, no source code, only the graph."""

import copy
import threading
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from pipelines.errors import SourceError
from pipelines.pt2_archive import check_archive

EXPORT_LOCK = threading.Lock()  # torch.export and its loader keep their state in module globals
TOLERANCE = 1e-4  # of the largest answer: what two forms of one model may differ by
_MODES = ("training", "train", "use_input_stats")  # what operators call their training switch


class ExportedGraph(fx.GraphModule):
    """A graph whose operators change to their training form and back, as modules would.

    A graph that was exported for evaluation still holds its batch norms and dropouts as one operator each, with a switch
    among the arguments. What was exported in another form (decomposed, or without running statistics) stays as it is:
    `frozen_norms` names those.
    """

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        changed = [_switch(node, mode) for node in self.graph.nodes]
        if any(changed):
            self.recompile()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with warnings.catch_warnings():  # torch 2.13 deprecates a class that its own graphs hold
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            return cast(Self, super().__deepcopy__(memo))

    @property
    def frozen_norms(self) -> tuple[str, ...]:
        """The batch norms that use the statistics of the export for ever, also in training."""
        return tuple(node.name for node in self.graph.nodes if _is_batch_norm(node) and _mode_of(node) is None)


def read_program(path: Path) -> ExportedProgram:
    """The program in a .pt2 file, which is looked through first. Raises SourceError."""
    check_archive(path)
    try:
        with EXPORT_LOCK:
            return torch.export.load(path)
    except Exception as exc:  # of many kinds
        raise SourceError(
            f"torch cannot read the exported graph: {first_line(exc)}",
            path.name,
            "use the version of torch that it was exported with, or export it again",
        ) from exc


def graph_of(program: ExportedProgram) -> ExportedGraph:
    """The program as a module in eval mode; its own checks of input sizes are left out, so any batch size goes in."""
    with EXPORT_LOCK:
        module = program.module(check_guards=False)
    graph = ExportedGraph(module, module.graph)
    _tie(graph)
    graph.eval()
    return graph


def load_graph(path: Path) -> ExportedGraph:
    """The program in a file as a module of the caller's own. Raises SourceError."""
    stat = path.stat()
    return copy.deepcopy(_loaded(path, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int, _size: int) -> ExportedGraph:
    """Reading takes some twenty times as long as copying, and every step of a flow starts from the same file."""
    return graph_of(read_program(path))


def is_training_form(program: ExportedProgram) -> bool:
    """Whether it was exported while training: its dropouts would drop, its batch norms use the batch."""
    modes = [_argument(node, name) for node in program.graph.nodes if (name := _mode_of(node))]
    return True in modes


def example_of(program: ExportedProgram) -> Tensor:
    """The batch that the program was exported with, [N, ...]. Raises SourceError unless it takes exactly one tensor."""
    inputs = program.example_inputs
    args, kwargs = inputs if inputs is not None else ((), {})
    if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
        raise SourceError(
            "the exported graph does not take one tensor",
            f"its inputs: {len(args)} positional, {len(kwargs)} by name",
            "export a model of one input, with an example of it",
        )
    return args[0]


def check_batch_sizes(graph: ExportedGraph, example: Tensor) -> None:
    """Raises SourceError if the graph answers only batches of the size that it was exported with."""
    longer = torch.cat([example, example, example[:1]])
    try:
        with torch.inference_mode():
            error = difference(graph(longer), torch.cat([graph(example), graph(example), graph(example)[:1]]))
        what = f"answers another batch size differently, by {error:.2g}" if not error <= TOLERANCE else None
    except RuntimeError as exc:
        what = f"takes no batch of another size: {first_line(exc)}"
    if what:
        raise SourceError(
            f"the exported graph {what}",
            f"exported with a batch of {len(example)}",
            "export it again with a dynamic batch axis; an example of more than one input makes MLflow do so",
        )


def difference(answers: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest answer (or to 1); infinite where shapes differ or an answer is no number."""
    if answers.shape != expected.shape:
        return float("inf")
    answers, expected = answers.detach(), expected.detach()
    error = float((answers - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    return error if error == error else float("inf")


def first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)


def _tie(graph: ExportedGraph) -> None:
    """Names of one tensor: the file holds it once, and the loader makes parameters that share its memory and no more."""
    known: dict[tuple[object, ...], torch.nn.Parameter] = {}
    for name, parameter in list(graph.named_parameters()):
        if parameter.numel():
            key = (parameter.data_ptr(), parameter.dtype, parameter.shape, parameter.stride())
            path, _, leaf = name.rpartition(".")
            graph.get_submodule(path).register_parameter(leaf, known.setdefault(key, parameter))


def _switch(node: fx.Node, mode: bool) -> bool:
    """Whether the node was in the other mode."""
    name = _mode_of(node)
    if name is None or _argument(node, name) is mode:
        return False
    position = [argument.name for argument in _arguments(node)].index(name)
    if position < len(node.args):
        node.update_arg(position, mode)
    else:
        node.update_kwarg(name, mode)
    return True


def _mode_of(node: fx.Node) -> str | None:
    """The name of the switch, if the operator has one and it can be used."""
    name = next((argument.name for argument in _arguments(node) if argument.name in _MODES), None)
    has_statistics = any(argument.name == "running_mean" for argument in _arguments(node))
    if name and has_statistics:
        # without statistics the batch's own are used in both modes; a momentum of 0 would never renew them
        usable = _argument(node, "running_mean") is not None and _argument(node, "momentum") != 0
        return name if usable else None
    return name


def _is_batch_norm(node: fx.Node) -> bool:
    names = {argument.name for argument in _arguments(node)}
    return "running_mean" in names and _argument(node, "running_mean") is not None


def _arguments(node: fx.Node) -> Sequence[Any]:
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return () if schema is None else schema.arguments


def _argument(node: fx.Node, name: str) -> Any:
    for position, argument in enumerate(_arguments(node)):
        if argument.name == name:
            given: Iterable[Any] = node.args[position : position + 1]
            return next(iter(given), node.kwargs.get(name, argument.default_value))
    return None
