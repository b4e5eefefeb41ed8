import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import registry
from pipelines.registry.decisions import described


@given(st.text(max_size=400), st.lists(st.text(min_size=1, max_size=100), max_size=8), st.integers(150, 400))
def test_a_description_never_exceeds_its_limit(text: str, sentences: list[str], limit: int) -> None:
    assert len(described(text, sentences, limit)) <= max(limit, 0)


def test_the_latest_decision_and_the_first_sentence_stay() -> None:
    text = "Plain sentence.\n\n" + "| a | row |\n" * 1000
    result = described(text, [f"decision {n}: {'because ' * 60}" for n in range(100)])
    assert len(result) <= 5000
    assert result.startswith("Plain sentence.\n")
    assert "decision 99" in result
    assert "decision 0:" not in result
    assert "(cut)" in result


@pytest.mark.parametrize("text", ["", "short"])
def test_what_fits_is_left_as_it_is(text: str) -> None:
    assert registry.fitted(text) == described(text, []) == text


def test_somebody_elses_tag_is_no_decision() -> None:
    assert registry.decisions_in({"promotion.decisions": "yes"}) == ()
    assert registry.decisions_in({"promotion.decisions": '[{"x": 1}]'}) == ()
