import dataclasses
from typing import Any

import pytest

from pipelines.config import Gate
from pipelines.errors import ConfigError
from pipelines.promotion import Facts, failures_of, gate_function

SOURCE = Facts(title="source", value=0.98, latency_ms=10.0, params=1000, macs=10_000, size_bytes=4_000_000)
GOOD = Facts(
    title="good",
    value=0.97,
    latency_ms=5.0,
    params=500,
    macs=5_000,
    size_bytes=2_000_000,
    drop=0.01,
    drop_upper=0.015,
    agreement=0.99,
    speedup=2.0,
    macs_factor=2.0,
)
TRUST = (__name__,)


def small_enough(candidate: Facts, source: Facts) -> str | None:
    return None if candidate.params * 2 <= source.params else f"{candidate.params} parameters"


def breaks(_candidate: Facts, _source: Facts) -> str | None:
    raise ZeroDivisionError("no idea")


def says_true(_candidate: Facts, _source: Facts) -> object:
    return True


LIMITS: dict[str, Any] = {
    "max_accuracy_drop": 0.01,
    "min_agreement": 0.99,
    "min_speedup": 2.0,
    "max_latency_ms": 5.0,
    "max_size_mb": 2.0,
    "max_macs": 5_000,
    "min_macs_factor": 2.0,
}
WORSE: dict[str, tuple[dict[str, Any], str]] = {
    "max_accuracy_drop": ({"drop": 0.011}, "lost 0.011 on validation, allowed 0.01"),
    "min_agreement": ({"agreement": 0.98}, "agrees with the source on 0.9800, asked 0.99"),
    "min_speedup": ({"speedup": 1.9}, "1.90x faster, asked 2x"),
    "max_latency_ms": ({"latency_ms": 5.1}, "takes 5.10 ms, allowed 5"),
    "max_size_mb": ({"size_bytes": 2_100_000}, "weighs 2.100 MB, allowed 2"),
    "max_macs": ({"macs": 5_001}, "needs 5001 MACs per sample, allowed 5000"),
    "min_macs_factor": ({"macs_factor": 1.99}, "1.99x fewer MACs, asked 2x"),
}


def test_a_limit_that_is_just_met_is_met() -> None:
    assert failures_of(Gate(**LIMITS), GOOD, SOURCE) == ()


@pytest.mark.parametrize("limit", sorted(WORSE))
def test_every_limit_fails_by_itself_and_says_why(limit: str) -> None:
    change, reason = WORSE[limit]
    worse = dataclasses.replace(GOOD, **change)
    assert failures_of(Gate(**LIMITS), worse, SOURCE) == (reason,)
    assert failures_of(Gate(max_accuracy_drop=1), worse, SOURCE) == ()  # limits that are not set do not count


def test_all_reasons_are_given() -> None:
    change: dict[str, Any] = {}
    for fields, _ in WORSE.values():
        change |= fields
    assert failures_of(Gate(**LIMITS), dataclasses.replace(GOOD, **change), SOURCE) == tuple(r for _, r in WORSE.values())


def test_the_statistical_gate_judges_the_bound() -> None:
    gate = Gate(max_accuracy_drop=0.015, by_confidence_bound=True)
    assert failures_of(gate, GOOD, SOURCE) == ()
    (reason,) = failures_of(gate, dataclasses.replace(GOOD, drop_upper=0.016), SOURCE)
    assert "upper bound" in reason
    (reason,) = failures_of(gate, dataclasses.replace(GOOD, drop_upper=None), SOURCE)  # unknown is not passed
    assert "not known" in reason


def test_a_function_of_the_users_own() -> None:
    gate = Gate(function=f"{__name__}:small_enough")
    assert failures_of(gate, dataclasses.replace(GOOD, drop=0.0), SOURCE, TRUST) == ()
    assert failures_of(gate, dataclasses.replace(GOOD, params=501), SOURCE, TRUST) == ("501 parameters",)


@pytest.mark.parametrize(("name", "words"), [("breaks", "ZeroDivisionError: no idea"), ("says_true", "answered True")])
def test_a_function_that_breaks_lets_nothing_through(name: str, words: str) -> None:
    (reason,) = failures_of(Gate(function=f"{__name__}:{name}"), GOOD, SOURCE, TRUST)
    assert words in reason


@pytest.mark.parametrize(
    ("path", "trust", "words"),
    [("os:getcwd", TRUST, "not trusted"), (f"{__name__}:nothing", TRUST, "cannot be imported"), ("os:getcwd", (), "gate")],
)
def test_code_that_is_not_trusted_is_not_run(path: str, trust: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        gate_function(path, trust)


def test_a_drop_that_is_no_number_does_not_pass() -> None:
    (reason,) = failures_of(Gate(), dataclasses.replace(GOOD, drop=float("nan")), SOURCE, ())
    assert "nan" in reason
