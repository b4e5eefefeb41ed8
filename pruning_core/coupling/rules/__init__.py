"""One small rule per ATen operator: which ids its outputs carry and which ids it links.

    @rule("aten.linear")
    def linear(ctx: Context, x: Sym, weight: Sym, bias: Sym | None = None) -> Axes: ...

A rule gets the call's arguments in the operator's own order, tensors replaced by `Sym`, and returns the axes of the
output (a list of them where there are several outputs). Register your own for a custom op with the same decorator.
"""

from pruning_core.coupling.rules import (  # noqa: F401  (importing a family registers its rules)
    attention,
    combine,
    conv,
    create,
    elementwise,
    index,
    linear,
    norm,
    recurrent,
    reduce,
    shape,
    spatial,
)
from pruning_core.coupling.rules.table import RULES, Context, Sym, has_rule, rule

__all__ = ["RULES", "Context", "Sym", "has_rule", "rule"]
