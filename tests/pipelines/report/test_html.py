import dataclasses

import numpy as np

from pipelines.report import Confusions, Width, html_report, pareto_front
from pipelines.steps.compare import Comparison, Failure
from tests.pipelines.steps.test_compare import comparison, model


def five() -> Comparison:
    """The source stands at (8 ms, 0.95)."""
    return comparison(
        (model("slow & exact", 0.96, 0.96), 7.0),
        (model("fast", 0.95, 0.90), 4.0),
        (model("as fast, worse", 0.95, 0.89), 4.0),
        (model("between", 0.95, 0.90), 6.0),
    )


def test_the_front_holds_what_nothing_beats() -> None:
    assert [row.title for row in pareto_front(five().rows)] == ["fast", "slow & exact"]


def test_the_report_holds_everything_and_asks_nobody() -> None:
    failure = Failure(title="broken", reason="<b>no</b>")
    result = dataclasses.replace(five(), challenger="slow & exact", failures=(failure,))
    confusions = Confusions("slow & exact", np.eye(3, dtype=np.int64), np.ones((3, 3), dtype=np.int64))
    text = html_report(result, {"fast": [Width("conv1", 64, 16), Width("conv2", 32, 8)]}, confusions)
    best = text.partition('class="best">')[2].partition("</tr>")[0]
    assert "slow &amp; exact" in best
    assert "<b>no</b>" not in text
    assert "conv2" in text
    assert "minus source" in text
    assert '<script src="http' not in text
    assert "nothing was registered" in html_report(dataclasses.replace(result, challenger=None), {})
