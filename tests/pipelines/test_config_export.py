import pytest

from pipelines.config import CompressConfig, parse_config
from pipelines.errors import ConfigError


def recipe(**sections: object) -> CompressConfig:
    return parse_config({"source": {"model": "models:/m/1"}, "candidates": [{"ratio": 0.5}], **sections}, "test")


def test_the_default_needs_no_other_packages() -> None:
    export = recipe().export
    assert export.formats == ("pt2",)
    assert not export.int8
    assert recipe(export={"formats": "onnx"}).export.formats == ("onnx",)


@pytest.mark.parametrize(
    ("export", "words"),
    [
        ({"int8": True}, "write `formats: [pt2, onnx]`"),
        ({"formats": ["tflite"]}, "'tflite' is not allowed"),
        ({"opset": 17}, "greater than or equal to 18"),
        ({"format": ["onnx"]}, "did you mean 'formats'"),
    ],
)
def test_a_form_that_nobody_can_make_is_refused(export: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(export=export)
    assert words in str(caught.value)


@pytest.mark.parametrize("trust", ["pickle", ["pickle"]])
def test_trust_may_be_one_word(trust: object) -> None:
    assert recipe(source={"model": "models:/m/1", "trust": trust}).source.trust == ("pickle",)
