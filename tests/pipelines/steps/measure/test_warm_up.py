import pytest

from pipelines.steps.measure import warm_up


def calls_for(durations: list[float], at_least: int) -> tuple[int, bool]:
    """Of a machine whose n-th call takes durations[n] seconds, the last for ever."""
    now, made = [0.0], [0]

    def run() -> None:
        now[0] += durations[min(made[0], len(durations) - 1)]
        made[0] += 1

    result = warm_up(run, at_least, clock=lambda: now[0])
    assert result[0] == made[0]
    return result


@pytest.mark.parametrize(
    ("durations", "at_least", "expected"),
    [
        ([1e-3], 0, (10, True)),  # two windows of five
        ([1e-3], 30, (30, True)),
        ([1.0, 1.0, 1e-3], 0, (10, True)),  # a median does not see two slow calls
        ([8e-3] * 5 + [4e-3] * 5 + [1e-3], 0, (18, True)),  # 3 of the 5 before are 1 ms from the 13th call on
    ],
    ids=["steady", "at least", "two slow", "two steps"],
)
def test_it_calls_until_the_times_are_steady(durations: list[float], at_least: int, expected: tuple[int, bool]) -> None:
    assert calls_for(durations, at_least) == expected


def test_an_unsteady_machine_is_given_up_and_said_so() -> None:
    assert calls_for([0.1 * 0.9**n for n in range(200)], 0) == (100, False)
    assert calls_for([3.0 + n for n in range(20)], 0)[1] is False  # 10 seconds are over first
    assert calls_for([3.0 + n for n in range(20)], 0)[0] <= 10
