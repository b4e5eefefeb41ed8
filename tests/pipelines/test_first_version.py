"""A first version that cannot be trained is refused before anything is made."""

from typing import Any

import pytest

from pipelines.errors import ConfigError, DataError, SecateurError
from pipelines.first_version import first_version
from tests.conftest import quick_config, run_count

FACTORY = "pipelines.models:small_resnet"


@pytest.mark.parametrize(
    ("first", "sections", "kind", "words"),
    [
        ({"kwargs": {"classes": 7}}, {}, DataError, "the model knows 7 classes, the data set has 10"),
        ({"kwargs": {"width": 8}}, {"task": "segmentation"}, DataError, "not the logits"),
        ({"factory": "tests.pipelines.tasks.segmenter:TinySegmenter"}, {}, DataError, "cannot take these images"),
        ({"training": {"hardware": {"strategy": "dpp"}}}, {}, ConfigError, "invalid strategy name"),
    ],
    ids=["classes", "task", "inputs", "hardware"],
)
def test_what_cannot_be_trained_is_refused(
    store_uri: str, first: dict[str, Any], sections: dict[str, Any], kind: type[SecateurError], words: str
) -> None:
    source = {
        "model": "models:/new@champion",
        "trust": ["pipelines.models", "tests.pipelines.tasks"],
        "first": {"factory": FACTORY, **first},
    }
    before = run_count(store_uri)
    with pytest.raises(kind, match=words):
        first_version(quick_config(store_uri, source=source, **sections))
    assert run_count(store_uri) == before
