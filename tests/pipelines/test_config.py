import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pipelines.config import CompressConfig, load_config, parse_config
from pipelines.errors import ConfigError

GOOD: dict[str, Any] = {"source": {"model": "models:/m@champion"}, "candidates": [{"ratio": 0.5}]}
RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "digits.yaml"


def parse(**changes: Any) -> CompressConfig:
    return parse_config({**GOOD, **changes}, "recipe.yaml")


def test_defaults_are_those_of_the_engine() -> None:
    import pruning_core as pc

    assert parse().candidates[0].spec() == pc.PruningSpec(ratio=0.5).resolved(has_calibration=True)
    assert parse(calibration={"samples": 0}).candidates[0].spec() == pc.PruningSpec(ratio=0.5).resolved(False)
    usual = parse(candidates=[{"ratio": 0.5}]).candidates[0].model_dump()
    for name, value in pc.PruningSpec().resolved(True).to_dict().items():
        assert name == "ratio" or usual[name] in (value, tuple(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize(
    ("candidate", "title", "without_data"),
    [
        ({"ratio": 0.5}, "reconstruction-uniform-0.5", "l2_norm-uniform-0.5"),
        ({"budget": {"macs": "2.0x"}}, "reconstruction-macs-2x", "l2_norm-macs-2x"),
        ({"ratio": 0.7, "criterion": "l2_norm", "allocator": "slamp"}, "l2_norm-slamp-0.7", "l2_norm-slamp-0.7"),
        ({"ratios": {"stem.*": 0.25}}, "reconstruction-per_layer", "l2_norm-per_layer"),
        ({"budget": {"params": 5e5, "latency_ms": 3}}, "reconstruction-params-500000-latency_ms-3", None),
        ({"index": {"stem.0": "3, 8-11"}}, "index-stem.0", "index-stem.0"),
        ({"ratio": 0.5, "name": "mine"}, "mine", "mine"),
    ],
)
def test_a_title_says_what_auto_means(candidate: dict[str, Any], title: str, without_data: str | None) -> None:
    assert parse(candidates=[candidate]).candidates[0].title == title
    if without_data is not None:
        assert parse(candidates=[candidate], calibration={"samples": 0}).candidates[0].title == without_data


def test_what_goes_can_be_said_in_several_ways() -> None:
    index = parse(candidates=[{"index": {"stem.0": "3, 8-11", "conv": [1, 1, 0], "last": 7}}]).candidates[0].spec()
    assert index.index == {"stem.0": (3, 8, 9, 10, 11), "conv": (0, 1), "last": (7,)}
    layers = parse(candidates=[{"ratios": {"a": 0.5}}]).candidates[0]
    assert (layers.spec().allocator, layers.asked) == ("per_layer", "per layer")
    mixed = parse(candidates=[{"ratio": 0.3, "ratios": {"a": 0.5}}]).candidates[0].spec()
    assert (mixed.allocator, mixed.ratio, mixed.ratios) == ("uniform", 0.3, {"a": 0.5})
    budget = parse(candidates=[{"budget": {"macs": "3x"}}]).candidates[0]
    assert (budget.spec().allocator, budget.asked) == ("budget", "macs 3x")


@pytest.mark.parametrize(
    ("axis", "means"), [("-1", "inner"), ("'-1'", "inner"), ("-2", "outer"), ('"-2"', "outer"), ("outer", "outer")]
)
def test_a_reshape_axis_in_yaml_is_a_word_or_a_number(axis: str, means: str) -> None:
    candidate = yaml.safe_load(f"{{ratio: 0.5, reshape_axis: {axis}}}")
    assert parse(candidates=[candidate]).candidates[0].reshape_axis == means


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_one_glob_needs_no_list(option: str) -> None:
    config = parse(candidates=[{"ratio": 0.5, option: "head.*"}])
    assert getattr(config.candidates[0].spec(), option) == ("head.*",)
    assert config == parse(candidates=[{"ratio": 0.5, option: ["head.*"]}])


def test_ratios_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "ratios.yaml").write_text("criterion: l1_norm\nallocator: per_layer\nratios:\n  stem.0: 0.25\n")
    (tmp_path / "plain.yaml").write_text("stem.0: 0.5\n")
    recipe = tmp_path / "recipe.yaml"
    candidates = [{"ratios_from": "ratios.yaml"}, {"ratios_from": "plain.yaml", "criterion": "l2_norm", "name": "mine"}]
    recipe.write_text(yaml.safe_dump({**GOOD, "candidates": candidates}))
    config = load_config(recipe)
    first, second = config.candidates
    assert (first.title, first.criterion, first.ratios) == ("ratios", "l1_norm", {"stem.0": 0.25})
    assert (second.title, second.criterion, second.ratios) == ("mine", "l2_norm", {"stem.0": 0.5})
    assert parse_config(yaml.safe_load(config.to_yaml()), "elsewhere") == config  # the file is not needed again
    for text, words in [("[", "not YAML"), ("- 1", "no ratios"), ("stem.0: half", "half"), ("ratios: {a: 2}", "2")]:
        (tmp_path / "plain.yaml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config(recipe)


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
        ({"candidates": [{"ratio": 0.5}, {"ratio": 0.5}]}, ["two candidates", "reconstruction-uniform-0.5"]),
        ({"candidates": [{}]}, ["candidates[0]", "does not say what goes"]),
        ({"candidates": [{"allocator": "per_layer"}]}, ["candidates[0]", "does not say what goes"]),
        ({"candidates": [{"ratio": 0.5, "allocator": "per_layer"}]}, ["candidates[0]", "no `ratios`"]),
        ({"candidates": [{"ratio": 0.5, "budget": {"macs": "2x"}}]}, ["candidates[0]", "`ratio` and `budget`"]),
        ({"candidates": [{"index": {"a": "1"}, "ratios": {"a": 0.5}}]}, ["candidates[0]", "`index` and `ratios`"]),
        ({"candidates": [{"budget": {"macs": "2x"}, "allocator": "slamp"}]}, ["candidates[0]", "'slamp'"]),
        ({"candidates": [{"budget": {"mac": "2x"}}]}, ["candidates[0].budget", "did you mean 'macs'"]),
        ({"candidates": [{"budget": {"macs": "fast"}}]}, ["candidates[0].budget", "'fast'", '"2.0x"']),
        ({"candidates": [{"index": {"stem.0": "3, 8-x"}}]}, ["candidates[0].index", "'8-x' at column 4", "stem.0"]),
        ({"candidates": [{"index": {"stem.0": 2.5}}]}, ["candidates[0].index", "2.5", "stem.0"]),
        ({"candidates": [{"ratio": 0.5, "compensation": "sequental"}]}, ["compensation", "did you mean 'sequential'"]),
        ({"candidates": [{"ratio": 0.5, "refit": "sequential"}]}, ["[0].refit", "write `compensation: sequential`"]),
        ({"candidates": [{"ratio": 0.5, "iterative": 3}]}, ["candidates[0].iterative", "write `steps`"]),
        ({"candidates": [{"ratio": 0.5, "reshape_axis": -3}]}, ["candidates[0].reshape_axis", "-3", "outer (-2)"]),
        ({"candidates": [{"ratio": 0.5, "exclude": 3}]}, ["candidates[0].exclude", "3", "a list"]),
        ({"candidates": [{"ratio": 0.5, "steps": 0}]}, ["candidates[0].steps", "0"]),
        ({"candidates": [{"ratios_from": "none.yaml"}]}, ["candidates[0]", "none.yaml", "secateur recommend"]),
        ({"candidates": [{"ratios_from": "a.yaml", "ratios": {"a": 0.5}}]}, ["`ratios` and `ratios_from`"]),
        ({"calibration": {"sample": 3}}, ["calibration.sample", "did you mean 'samples'"]),
        ({"calibration": {"samples": -1}}, ["calibration.samples", "-1"]),
        (
            {"calibration": {"samples": 0}, "candidates": [{"ratio": 0.5, "compensation": "sequential"}]},
            ["compensation 'sequential' needs data", "calibration.samples"],
        ),
        (
            {"calibration": {"samples": 0}, "candidates": [{"ratio": 0.5, "recalibrate_bn": True}]},
            ["recalibrate_bn needs data", "calibration.samples"],
        ),
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
    assert ratio["anyOf"][0]["exclusiveMaximum"] == 1


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"name": "npz", "label": "species"}, "label"),
        ({"name": "own.data:Loaders", "images": {"mean": [0.5], "std": [0.5]}, "trust": ["own"]}, "images.mean"),
        ({"name": "cifar10", "images": {"size": 96}}, "images.size"),
        ({"name": "digits", "kwargs": {"fold": 1}}, "kwargs"),
        ({"name": "own.data:Loaders", "test": 0.1, "trust": ["own"]}, "test"),
    ],
)
def test_what_means_nothing_to_a_data_set_is_refused(data: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is for .*, and means nothing to {data['name']}"):
        parse(data=data)


def test_defaults_said_aloud_are_no_mistake() -> None:
    data = parse(data={"name": "parquet", "path": "p", "label": "species", "images": {"mean": [0.5], "std": [0.5]}}).data
    assert parse(data=data.model_dump(mode="json")).data == data
    assert parse(data={"name": "digits", "label": "label", "test": 0.3}).data.test == 0.3
