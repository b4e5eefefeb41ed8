"""What a terminal and a log see of long work."""

import io

from rich.console import Console

from pipelines.display import Bars, Lines


def test_a_bar_follows_the_batches_wherever_they_begin() -> None:
    with Bars(Console(file=io.StringIO())) as bars:
        bars.start("train", 1)
        bars.reach("train", 40, 100)  # resumed
        (task,) = bars.progress.tasks
        assert (task.completed, task.total) == (40, 100)
        bars.reach("train", 41, 100)
        bars.finish("train")  # early
        assert task.finished


def test_a_log_has_one_line_per_training() -> None:
    out = io.StringIO()
    with Lines(Console(file=out, width=80)) as lines:
        for last in (3, 2):
            lines.start(f"train to {last}", 1)
            for done in range(1, last + 1):
                lines.reach(f"train to {last}", done, 3)
            lines.finish(f"train to {last}")
    assert [line.partition(":")[0] for line in out.getvalue().splitlines()] == ["train to 3", "train to 2"]
