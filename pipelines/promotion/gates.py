"""Each gate says why a model fails it, or nothing. One function per limit; a user's own function is one more."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pipelines.errors import ConfigError
from pipelines.imports import trusted
from pipelines.promotion.facts import Facts

SLACK = 1e-9  # 0.98 - 0.96 is more than 0.02 in floating point

Check = Callable[["Limits", Facts], str | None]
GateFunction = Callable[[Facts, Facts], str | None]  # candidate, source -> why not, or None


class Limits(Protocol):
    """The `gate` section of the configuration is one. None: no limit."""

    @property
    def max_accuracy_drop(self) -> float: ...
    @property
    def by_confidence_bound(self) -> bool: ...
    @property
    def min_agreement(self) -> float | None: ...
    @property
    def min_speedup(self) -> float | None: ...
    @property
    def max_latency_ms(self) -> float | None: ...
    @property
    def max_size_mb(self) -> float | None: ...
    @property
    def max_macs(self) -> float | None: ...
    @property
    def min_macs_factor(self) -> float | None: ...
    @property
    def function(self) -> str | None: ...


def failures_of(limits: Limits, candidate: Facts, source: Facts, trust: Sequence[str] = ()) -> tuple[str, ...]:
    """Why `candidate` may not replace `source`: one sentence per gate that it fails. Empty: it passed.

    Raises ConfigError if `limits.function` names code that is not trusted or cannot be imported.
    """
    reasons = [check(limits, candidate) for check in CHECKS.values()]
    if limits.function is not None:
        reasons.append(_ask(limits.function, gate_function(limits.function, trust), candidate, source))
    return tuple(reason for reason in reasons if reason)


def gate_function(path: str, trust: Sequence[str]) -> GateFunction:
    """The user's function at `package.module:name`, below a trusted import path. Importing runs code. Raises ConfigError."""
    return trusted(path, trust, "source.trust", ConfigError, who="the gate")


def _ask(path: str, function: GateFunction, candidate: Facts, source: Facts) -> str | None:
    """Fail closed: a function that breaks, or that answers something else, lets nothing through."""
    try:
        answer = function(candidate, source)
    except Exception as exc:
        return f"{path} broke: {type(exc).__name__}: {exc}"
    if answer is None or isinstance(answer, str):
        return answer or None
    return f"{path} answered {answer!r}; it must return None to pass, or the reason as a string"


def _accuracy(limits: Limits, facts: Facts) -> str | None:
    allowed = limits.max_accuracy_drop
    if not limits.by_confidence_bound:
        lost = not facts.drop <= allowed + SLACK  # a drop that is no number is one too many
        return f"lost {facts.drop:.3f} on validation, allowed {allowed:g}" if lost else None
    if facts.drop_upper is None:
        return "the interval of the accuracy drop is not known, and the gate asks for it"
    if facts.drop_upper <= allowed + SLACK:
        return None
    return (
        f"may have lost {facts.drop_upper:.3f} on validation (upper bound; measured {facts.drop:.3f}), allowed {allowed:g}"
    )


def _agreement(limits: Limits, facts: Facts) -> str | None:
    asked = limits.min_agreement
    if asked is None:
        return None
    if facts.agreement is None:
        return "the agreement with the source is not known, and the gate asks for it"
    return f"agrees with the source on {facts.agreement:.4f}, asked {asked:g}" if facts.agreement < asked - SLACK else None


def _at_least(field: str, words: str, value: Callable[[Facts], float]) -> Check:
    def check(limits: Limits, facts: Facts) -> str | None:
        limit: float | None = getattr(limits, field)
        if limit is None or value(facts) >= limit - SLACK:
            return None
        return f"{words.format(value(facts))}, asked {limit:g}x"

    return check


def _at_most(field: str, words: str, value: Callable[[Facts], float]) -> Check:
    def check(limits: Limits, facts: Facts) -> str | None:
        limit: float | None = getattr(limits, field)
        if limit is None or value(facts) <= limit * (1 + SLACK):
            return None
        return f"{words.format(value(facts))}, allowed {limit:g}"

    return check


CHECKS: Mapping[str, Check] = {
    "max_accuracy_drop": _accuracy,
    "min_agreement": _agreement,
    "min_speedup": _at_least("min_speedup", "{:.2f}x faster", lambda facts: facts.speedup),
    "max_latency_ms": _at_most("max_latency_ms", "takes {:.2f} ms", lambda facts: facts.latency_ms),
    "max_size_mb": _at_most("max_size_mb", "weighs {:.3f} MB", lambda facts: facts.size_mb),
    "max_macs": _at_most("max_macs", "needs {:.4g} MACs per sample", lambda facts: facts.macs),
    "min_macs_factor": _at_least("min_macs_factor", "{:.2f}x fewer MACs", lambda facts: facts.macs_factor),
}
