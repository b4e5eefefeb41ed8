import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.promotion import OBJECTIVES, Facts, best_of, pareto_front


def facts(title: str, latency_ms: float, accuracy: float, size: int = 100) -> Facts:
    return Facts(
        title=title,
        value=accuracy,
        drop=0.992 - accuracy,
        latency_ms=latency_ms,
        params=size,
        macs=size,
        size_bytes=size,
    )


SOURCE = facts("source", 11.36, 0.992)
some = st.builds(
    facts,
    title=st.uuids().map(str),
    latency_ms=st.floats(0.1, 100),
    accuracy=st.integers(0, 100).map(lambda n: n / 100),
    size=st.integers(1, 1000),
)


def test_the_fastest_does_not_win_by_being_the_fastest() -> None:
    """The demo: the control is the fastest and one image less accurate; the 4x candidate has nearly all of the speed."""
    demo = [facts("2x", 8.92, 0.989), facts("4x", 6.44, 0.992), facts("control", 5.91, 0.989)]
    assert best_of(demo, SOURCE, "knee") == "4x"
    assert best_of(demo, SOURCE, "latency") == "control"
    assert best_of(demo[2:], SOURCE, "knee") == "control"  # alone, it is the best


def test_the_knee_is_where_the_front_bends() -> None:
    bend = [facts("a", 9, 0.990), facts("b", 4, 0.985), facts("c", 3, 0.94), facts("d", 2.8, 0.90)]
    assert best_of(bend, facts("source", 10, 0.991)) == "b"


def test_equal_in_everything_that_counts_is_decided_by_accuracy_then_speed_then_size() -> None:
    assert best_of([facts("a", 5, 0.9), facts("b", 5, 0.95)], SOURCE, "latency") == "b"
    assert best_of([facts("a", 5, 0.9), facts("b", 4, 0.9)], SOURCE, "accuracy") == "b"
    assert best_of([facts("a", 5, 0.9, 9), facts("b", 5, 0.9, 8)], SOURCE, "latency") == "b"


def test_size_macs_and_params_take_the_smallest() -> None:
    for name in ("size", "macs", "params"):
        assert best_of([facts("a", 1, 1, 9), facts("b", 9, 0, 8)], SOURCE, name) == "b"


@given(st.lists(some, min_size=1, max_size=6, unique_by=lambda f: f.title), st.sampled_from(sorted(OBJECTIVES)))
def test_the_choice_depends_on_the_models_and_not_on_their_order(candidates: list[Facts], name: str) -> None:
    chosen = best_of(candidates, SOURCE, name)
    best = next(f for f in candidates if f.title == chosen)
    other = next(f for f in candidates if f.title == best_of(candidates[::-1], SOURCE, name))
    assert (best.drop, best.latency_ms, best.params) == (other.drop, other.latency_ms, other.params)
    if name in ("knee", "latency", "accuracy"):
        assert best in pareto_front(candidates)


@given(st.lists(some, min_size=1, max_size=6, unique_by=lambda f: f.title))
def test_the_front_holds_the_fastest_and_the_most_accurate(candidates: list[Facts]) -> None:
    front = pareto_front(candidates)
    assert min(f.drop for f in front) == min(f.drop for f in candidates)
    assert min(f.latency_ms for f in front) == min(f.latency_ms for f in candidates)


def test_nothing_to_choose_from_and_a_name_that_is_not_there() -> None:
    assert best_of([], SOURCE) is None
    with pytest.raises(KeyError):
        best_of([SOURCE], SOURCE, "luck")
