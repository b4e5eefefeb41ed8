"""The only tracer: one run of the model gives a flat list of ATen calls, with no real memory where that is possible.

The run is in inference mode, so that composite operators (linear, scaled_dot_product_attention, reshape) are seen whole
where a rule knows them, and are taken apart where none does. The model itself is never run: a twin of it is, whose
parameters lie on the meta device. A model that needs values (`.item()`, boolean masks) is run for real instead.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode

from pruning_core import tree
from pruning_core.constants import Constants, numbers_of
from pruning_core.graphmodule import run_nodes
from pruning_core.inputs import ExampleInputs
from pruning_core.memos import Memo, emptied, forget, forgotten, remembering
from pruning_core.twin import like, modules_by_path, named_tensors, twin
from pruning_core.writes import Writes, does_write, memory_of, written


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the run, by number: the same tensor object is the same value."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One ATen call. Tensors in `args`, `kwargs` and `result` are replaced by Values."""

    index: int
    func: Any
    name: str  # the operator without its overload, e.g. `aten.conv2d`
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    module: str  # path of the innermost module whose forward issued the call
    key: str  # of the graph node, where the model is an exported graph
    _inputs: tuple[Value, ...]
    _outputs: tuple[Value, ...]

    def outputs(self) -> tuple[Value, ...]:
        return self._outputs

    def inputs(self) -> tuple[Value, ...]:
        return self._inputs


@dataclass(slots=True, eq=False)
class Trace:
    """The run: calls in order, and which values were the tensors of the module, its inputs and its outputs."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Value] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    returned: tuple[Any, ...] = ()  # numbers and strings among the outputs
    constants: list[tuple[int, Any]] = field(default_factory=list)  # (calls before it, numbers made into a tensor)
    positions: dict[int, Any] = field(default_factory=dict)  # integer buffers that pick channels: value -> numbers
    pins: dict[tuple[str, int], tuple[Any, str]] = field(default_factory=dict)  # (tensor, axis) -> what stays, and why
    real: bool = False
    writes: Writes = field(default_factory=Writes)
    memos: tuple[Memo, ...] = ()  # functions that would remember tensors of the run
    stores: tuple[Memo, ...] = ()  # dictionaries that would keep some
    error: Exception | None = None
    module: str = ""  # where the run stopped, when it did
    key: str = ""

    @property
    def remembered_by(self) -> tuple[Memo, ...]:
        """Who would still hold tensors of the run when it is over."""
        return (*self.memos, *self.stores)


_SKIPPED = {
    "aten.detach",
    "aten.alias",
    "prim.device",
    "aten.lift_fresh",
    "aten._assert_async",
    "aten.contiguous",  # called only where memory is not so: attention kernels lay theirs out in ways of their own
    "aten.lift",
    "aten.record_stream",
}


_SHAPES: dict[Any, tuple[Any, Any, torch.dtype]] = {}  # what a call on the meta device gave before
_MAX_SHAPES = 20_000
_MAKES_ONE: dict[Any, bool] = {}


def _on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """Run a call on the meta device; the same call on the same shapes is looked up, for many take a millisecond there."""
    if func not in _MAKES_ONE:
        returns = func._schema.returns
        _MAKES_ONE[func] = (
            len(returns) == 1
            and str(returns[0].type) == "Tensor"
            and all(a.alias_info is None for a in (*func._schema.arguments, *returns))
        )
    if not _MAKES_ONE[func]:
        if _writes_pointwise(func) and len(list(tree.tensors((args, kwargs)))) == 1:
            return args[0]  # nothing is there to be written
        return func(*args, **kwargs)
    try:
        key = (func, _shape_key(args), _shape_key(tuple(kwargs.items())))
        known = _SHAPES.get(key)
    except TypeError:  # something that is not hashable
        return func(*args, **kwargs)
    if known is not None:
        return torch.empty_strided(known[0], known[1], dtype=known[2], device="meta")
    result = func(*args, **kwargs)
    if any(result is tensor for tensor in tree.tensors((args, kwargs))):  # dropout gives back what it was given
        return result
    if type(result) is Tensor and result.device.type == "meta" and len(_SHAPES) < _MAX_SHAPES:
        _SHAPES[key] = (result.shape, result.stride(), result.dtype)
    return result


# pointwise operators that PyTorch does not tag so
_ACTIVATIONS = {
    "hardswish",
    "hardtanh",
    "relu6",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "silu",
    "mish",
    "hardsigmoid",
    "dropout",
}


@lru_cache(maxsize=1024)
def _writes_pointwise(func: Any) -> bool:
    """Whether this is the in-place form of a pointwise operator."""
    namespace, _, name = func._schema.name.partition("::")
    if name[:-1] in _ACTIVATIONS and name.endswith("_"):
        return True
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None) if name.endswith("_") and name[-2:] != "__" else None
    overloads = [] if packet is None else [getattr(packet, overload) for overload in packet.overloads()]
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)


def _shape_key(nest: Any) -> Any:
    if isinstance(nest, Tensor):
        return nest.shape, nest.stride(), nest.dtype, nest.device
    if isinstance(nest, list | tuple):
        return tuple([_shape_key(item) for item in nest])
    return type(nest), nest


def is_skipped(name: str) -> bool:
    """Calls that compute nothing and must not count when two runs are compared, on whatever devices."""
    return name in _SKIPPED


def is_call(func: Any, result: Any) -> bool:
    """Whether a call counts as one: it gives tensors, or writes them and gives nothing."""
    return isinstance(result, Tensor | list | tuple) or does_write(func)


class WouldWriteError(Exception):
    """A run is about to write a tensor that it only borrowed."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, keep_whole: Callable[[str], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.keep_whole = keep_whole
        self.known: dict[int, tuple[weakref.ref[Tensor], Value]] = {}
        self.count = 0
        self.stack: list[str] = [""]
        self.key = ""
        self.owners: dict[int | None, list[str]] = {}  # memory -> tensors of the module that lie there
        self.given: frozenset[int | None] = frozenset()  # memory of the inputs
        self.spared: frozenset[str] = frozenset()
        self.made: list[weakref.ref[Tensor]] = []

    def enter_node(self, node: str) -> None:
        self.key = node

    def note_writes(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            memory = memory_of(tensor)
            names = self.owners.get(memory, [])
            self.trace.writes.tensors.update(names)
            self.trace.writes.inputs |= memory in self.given
            if not self.spared.isdisjoint(names):
                raise WouldWriteError(names[0])

    def value(self, tensor: Tensor, *, is_new: bool = True) -> Value:
        entry = self.known.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        if is_new and not tensor.is_meta:  # from outside: its values count, too
            self.trace.constants.append((len(self.trace.ops), numbers_of(tensor)))
        value = Value(self.count, tuple(tensor.shape), tensor.dtype)
        self.count += 1
        self.known[id(tensor)] = (weakref.ref(tensor), value)
        return value

    def encode(self, nest: Any, into: list[Value], *, is_new: bool = True) -> Any:
        """The nest with Values for its tensors, which are also put into a flat list."""
        if isinstance(nest, Tensor):
            value = self.value(nest, is_new=is_new)
            into.append(value)
            return value
        if isinstance(nest, list | tuple):
            return tuple([self.encode(item, into, is_new=is_new) for item in nest])
        return nest

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if not self.keep_whole(name) and _can_decompose(func):
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        self.note_writes(written(func, args, kwargs))
        result = func(*args, **kwargs) if self.trace.real else _on_meta(func, args, kwargs)
        if is_skipped(name):
            if isinstance(result, Tensor) and args and isinstance(args[0], Tensor):
                self.known[id(result)] = (weakref.ref(result), self.value(args[0]))
                self.made += [weakref.ref(result)] if name == "aten.lift_fresh" else []
            return result
        if not is_call(func, result):
            return result
        ins: list[Value] = []
        outs: list[Value] = []
        in_args = self.encode(tuple(args), ins)
        in_kwargs = {key: self.encode(value, ins) for key, value in kwargs.items()}
        if name == "aten.as_strided":  # reads memory, not positions: where that lies is an argument, too
            in_kwargs["memory"] = (args[0].stride(), args[0].storage_offset(), args[0].untyped_storage().nbytes())
        out = self.encode(result, outs, is_new=not self.trace.real and name not in _UNSET)
        self.made += map(weakref.ref, tree.tensors(result))
        at, place = len(self.trace.ops), self.stack[-1]
        self.trace.ops.append(Op(at, func, name, in_args, in_kwargs, out, place, self.key, tuple(ins), tuple(outs)))
        forget(self.trace.memos)
        return result

    def left(self, known: Iterable[Tensor], *, made: bool = False) -> list[Tensor]:
        """Tensors of the run, besides those that are known, that somebody still holds. `made`: only those that it made."""
        ids = {id(tensor) for tensor in known}
        refs = self.made if made else [ref for ref, _ in self.known.values()]
        return [tensor for ref in refs if (tensor := ref()) is not None and id(tensor) not in ids]


@lru_cache(maxsize=4096)
def operator_name(func: Any) -> str:
    """The operator without its overload, e.g. `aten.conv2d`."""
    return str(func.overloadpacket)


@lru_cache(maxsize=4096)
def _can_decompose(func: Any) -> bool:
    return bool(func._can_decompose())


_UNSET = {"aten.empty", "aten.empty_like", "aten.empty_strided", "aten.new_empty"}  # what lies in them is chance


@contextlib.contextmanager
def _module_paths(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Know which module is running, through the process-wide hooks, so that no hook touches any module."""
    paths = {id(module): name for name, module in modules_by_path(model).items()}
    thread = threading.get_ident()

    def enter(module: nn.Module, _args: Any) -> None:
        if threading.get_ident() == thread and id(module) in paths:
            recorder.stack.append(paths[id(module)])

    def leave(module: nn.Module, _args: Any, _out: Any) -> None:
        if threading.get_ident() == thread and id(module) in paths:
            recorder.stack.pop()

    hooks = [nn_module.register_module_forward_pre_hook(enter), nn_module.register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def quiet_kernels() -> Iterator[None]:
    """Fused kernels hide what a model computes: off while tracing."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def meta_twin(model: nn.Module) -> nn.Module:
    """The model with every tensor on the meta device: no weights are read or copied."""
    return twin(model, lambda t: like(t, t.detach().to("meta")))


def real_twin(model: nn.Module, *, copy: bool = False, written: Collection[str] = ()) -> nn.Module:
    """A runnable throw-away copy. It shares the parameters' memory, unless `copy`, but those of `written`.

    A forward may write all that it does not share.
    """
    own = {id(t) for name, t in named_tensors(model).items() if name in written} if written else set()

    def replace(t: Tensor) -> Tensor:
        is_shared = isinstance(t, nn.Parameter) and not copy and id(t) not in own
        return like(t, t.detach() if is_shared else t.detach().clone())

    return twin(model, replace)


def record(
    throwaway: nn.Module,
    inputs: ExampleInputs,
    names: dict[str, Tensor],
    *,
    keep_whole: Callable[[str], bool],
    real: bool,
    training: bool = False,
    spared: Collection[str] = (),
    known: Trace | None = None,
) -> Trace:
    """Run a throw-away module once and write down every call. `names` are its own tensors by name.

    `known`: a run before, by which is known what must remember nothing; else that is found, and forgets it.

    A run that raises ends the trace early: `error` holds the exception and `module` the place. A call that would write
    one of `spared` raises first, and names it in `writes`.
    """
    throwaway.train(training)
    recorder = _Recorder(keep_whole)
    trace = recorder.trace
    if known is not None:
        trace.memos, trace.stores = known.memos, known.stores
    trace.real = trace.writes.inputs = real  # real values may be written where no operator shows it
    given = inputs.map(lambda t: t.detach().clone() if real else t.detach().to("meta"))
    trace.tensors = {name: recorder.value(tensor, is_new=False) for name, tensor in names.items()}
    trace.inputs = [recorder.value(t, is_new=False) for t in tree.tensors((given.args, given.kwargs))]
    for name, tensor in names.items():
        recorder.owners.setdefault(memory_of(tensor), []).append(name)
    recorder.spared = frozenset(spared)
    recorder.given = frozenset(memory_of(t) for t in tree.tensors((given.args, given.kwargs)))
    device: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if real else torch.device("meta")
    outputs: Any = None
    try:
        constants = Constants(trace.constants, lambda: len(trace.ops))
        quiet = (forgotten(trace.remembered_by), quiet_kernels(), torch.inference_mode())
        with contextlib.ExitStack() as stack:
            for context in (*quiet, _module_paths(throwaway, recorder), device, constants, recorder):
                stack.enter_context(context)
            outputs = call_model(throwaway, given, recorder.enter_node)
    except Exception as exc:
        trace.error = exc.with_traceback(None)
        trace.module, trace.key = recorder.stack[-1], recorder.key
    trace.outputs = [recorder.value(t) for t in tree.held(outputs)]
    trace.returned = tuple(tree.numbers(outputs))
    if known is None:
        mine = (*names.values(), *tree.tensors((given.args, given.kwargs)), *tree.held(outputs))
        trace.memos = remembering(recorder.left(mine))
        forget(trace.memos)
        trace.stores = emptied(recorder.left(mine, made=True), _dictionaries(throwaway))
    return trace


def _dictionaries(model: nn.Module) -> list[object]:
    """Of a model's own: attributes, parameters, what it keeps in them."""
    attributes = [vars(module) for module in model.modules()]
    return [*attributes, *(value for mine in attributes for value in mine.values() if isinstance(value, dict))]


def call_model(module: nn.Module, inputs: ExampleInputs, at: Callable[[str], None] = lambda _node: None) -> Any:
    """The module's outputs. Of an exported graph, node by node: `at(name)` is called before each."""
    if isinstance(module, torch.fx.GraphModule):
        return run_nodes(module, inputs, at)
    return module(*inputs.args, **inputs.kwargs)
