import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipelines.config import CompressConfig, load_config, parse_config
from pipelines.errors import ConfigError

GOOD: dict[str, Any] = {"source": {"model": "models:/m@champion"}, "candidates": [{"ratio": 0.5}]}
RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "digits.yaml"


def parse(**changes: Any) -> CompressConfig:
    return parse_config({**GOOD, **changes}, "recipe.yaml")


def test_defaults_are_those_of_the_engine() -> None:
    import pruning_core as pc

    assert parse().candidates[0].spec() == pc.PruningSpec(ratio=0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": [{"ratio": 1.0}]}, ["candidates[0].ratio", "1.0", "less than 1"]),
        ({"candidates": [{"ratio": 0.5}, {"ratio": -0.2}]}, ["candidates[1].ratio", "-0.2"]),
        ({"candidates": [{"ratio": "half"}]}, ["candidates[0].ratio", "'half'"]),
        ({"candidates": []}, ["candidates", "empty"]),
        ({"candidates": None}, ["candidates"]),
        ({"candidates": [{"ratio": 0.5, "criterion": "l2norm"}]}, ["candidates[0].criterion", "did you mean 'l2_norm'"]),
        ({"candidates": [{"ratio": 0.5, "allocator": "unifrom"}]}, ["allocator", "did you mean 'uniform'"]),
        ({"candidates": [{"ratoi": 0.5}]}, ["candidates[0].ratoi", "did you mean 'ratio'"]),
        ({"candidates": [{"ratio": 0.5, "ratios": {"stem*": 1.5}}]}, ["candidates[0].ratios", "1.5"]),
        ({"finetune": {"epoch": 3}}, ["finetune.epoch", "did you mean 'epochs'"]),
        ({"finetune": {"distillation": {"wieght": 1}}}, ["finetune.distillation.wieght", "did you mean 'weight'"]),
        ({"finetune": {"optimizer": "adam"}}, ["finetune.optimizer", "'adamw'"]),
        ({"gaet": {}}, ["gaet", "did you mean 'gate'"]),
        ({"data": {"name": "digit"}}, ["data.name", "did you mean 'digits'"]),
        ({"data": {"test": 0.6, "validation": 0.5}}, ["data", "nothing to train on"]),
        ({"source": {"model": "runs:/abc/model"}}, ["source.model", "models:/name@alias"]),
        ({"source": {"model": "models:/m@challenger"}}, ["registration.alias", "source's own alias"]),
        ({"candidates": [{"ratio": 0.5}, {"ratio": 0.5}]}, ["two candidates", "l2_norm-uniform-0.5"]),
        ({"registration": {"alias": "latest"}}, ["registration.alias", "latest"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "where: recipe.yaml" in message
    assert len(message.splitlines()) == 3  # one mistake, one message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="3 mistakes") as caught:
        parse(candidates=[{"ratio": 2}], finetune={"epoch": 1}, gate={"max_accuracy_drop": -1})
    assert all(place in str(caught.value) for place in ("candidates[0].ratio", "finetune.epoch", "gate.max_accuracy_drop"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("source: [", "not YAML"), ("", "a mapping"), ("- 1", "a mapping"), ("\x00", "not YAML")],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")


def test_the_yaml_of_a_configuration_gives_it_back(tmp_path: Path) -> None:
    config = load_config(RECIPE)
    path = tmp_path / "copy.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config


def test_every_field_is_described() -> None:
    def check(section: type[BaseModel], path: str) -> None:
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                assert inner.__doc__, f"{path}{name}"
                check(inner, f"{path}{name}.")
            else:
                assert field.description, f"{path}{name}"

    check(CompressConfig, "")


def test_the_prefect_form_gets_the_descriptions() -> None:
    schema = CompressConfig.model_json_schema()
    ratio = schema["$defs"]["Candidate"]["properties"]["ratio"]
    assert re.search("fraction of the channels", ratio["description"])
    assert ratio["exclusiveMaximum"] == 1
