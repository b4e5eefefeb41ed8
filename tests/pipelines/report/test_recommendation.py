"""The recommendation as a file that a person edits."""

import yaml

import pruning_core as pc
from pipelines.report import recommendation_yaml
from tests.models import NETS


def test_a_layer_that_the_floor_holds_says_so_and_can_be_edited() -> None:
    net = NETS["conv_stack"]
    found = pc.recommend(net.build(), net.inputs(), pc.PruningSpec(min_channels=24))
    text = recommendation_yaml(found, "models:/m/1", "0.5")
    assert yaml.safe_load(text)["ratios"] == {"conv1": 0.0, "conv2": 0.25, "conv3": 0.0}
    line = next(line for line in text.splitlines() if line.startswith("  # 16 -> 16 channels"))
    assert line.endswith("; floor: min_channels 24")
    assert "# fc: 10 channels, locked: reaches the model output" in text
