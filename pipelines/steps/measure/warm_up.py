"""Calls that are not counted: caches fill, kernels are chosen, clocks go up."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

WINDOW = 5  # calls
TOLERANCE = 0.05  # between the medians of two windows in a row
AT_MOST_CALLS = 100
AT_MOST_SECONDS = 10.0


def warm_up(run: Callable[[], object], at_least: int, clock: Callable[[], float] = perf_counter) -> tuple[int, bool]:
    """Call until steady; (calls, whether it became steady).

    Steady: `at_least` calls were made, and the median time of the last 5 differs from that of the 5 before by no more than
    5%. After 100 calls or 10 seconds beyond `at_least` it stays unsteady, which the samples will show.
    """
    times: list[float] = []
    began = clock()
    while True:
        start = clock()
        run()
        end = clock()
        times.append(end - start)
        if len(times) < at_least:
            began = end
            continue
        if len(times) >= 2 * WINDOW:
            before, last = median(times[-2 * WINDOW : -WINDOW]), median(times[-WINDOW:])
            if abs(last - before) <= TOLERANCE * before:
                return len(times), True
        if len(times) - at_least >= AT_MOST_CALLS or end - began >= AT_MOST_SECONDS:
            return len(times), False
