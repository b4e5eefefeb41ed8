"""Requests that make no sense are refused at birth, in the user's words."""

import pickle

import pytest

import pruning_core as pc


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "outside [0, 1)"),
        ({"ratio": -0.2}, "outside [0, 1)"),
        ({"ratio": float("nan")}, "outside [0, 1)"),
        ({"ratio": "half"}, "not a number"),
        ({"ratio": True}, "not a number"),
        ({"criterion": "l2norm"}, "did you mean 'l2_norm'?"),
        ({"allocator": "slam"}, "did you mean 'slamp'?"),
        ({"normalizer": "softmaxx"}, "did you mean 'softmax'?"),
        ({"policy": "avg"}, "did you mean"),
        ({"group_policy": "summ"}, "did you mean 'sum'?"),
        ({"reshape_axis": "inwards"}, "did you mean 'inner'?"),
        ({"reshape_axis": -3}, "reshape_axis -3 is unknown"),
        ({"round_mode": "near"}, "did you mean 'nearest'?"),
        ({"round_to": 0}, "not a whole number"),
        ({"min_channels": 2.5}, "not a whole number"),
        ({"ratios": {"conv1": 1.0}}, "ratios['conv1']"),
        ({"exclude": 3}, "not a list of name globs"),
    ],
)
def test_nonsense_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(pc.SpecError) as caught:
        pc.PruningSpec(**options)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n  where: " in str(caught.value)
    assert "\n  fix:   " in str(caught.value)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(pc.SpecError, match="did you mean 'criterion'"):
        pc.PruningSpec.from_dict({"critereon": "l2_norm"})


@pytest.mark.parametrize(("name", "fix"), [("refit", "compensation: sequential"), ("iterative", "steps")])
def test_the_options_that_have_another_name_here_are_told(name: str, fix: str) -> None:
    with pytest.raises(pc.SpecError) as caught:
        pc.PruningSpec.from_dict({name: 1})
    assert caught.value.fix == f"write `{fix}`"


@pytest.mark.parametrize(
    ("axis", "means"), [(-1, "inner"), ("-1", "inner"), (-2, "outer"), ("-2", "outer"), ("auto", "auto")]
)
def test_a_reshape_axis_is_a_word_or_a_number(axis: int | str, means: str) -> None:
    assert pc.PruningSpec(reshape_axis=axis).reshape_axis == means  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, ()),
        ({"normalizer": "tss", "policy": "average"}, ()),  # the defaults, said aloud
        ({"normalizer": "softmax"}, ("normalizer 'softmax'",)),
        ({"normalizer": "none", "policy": "max"}, ("normalizer 'none'", "policy 'max'")),
        ({"criterion": "l1_norm", "normalizer": "softmax", "policy": "max"}, ()),
        ({"index": {"conv": "3"}, "policy": "max"}, ()),
    ],
)
def test_what_reconstruction_has_no_use_for(options: dict[str, object], want: tuple[str, ...]) -> None:
    assert pc.PruningSpec(**options).resolved(has_calibration=True).unheeded == want  # type: ignore[arg-type]
    assert pc.PruningSpec(**options).resolved(has_calibration=False).unheeded == ()  # type: ignore[arg-type]


def test_ratios_alone_leave_the_other_layers_whole() -> None:
    assert pc.PruningSpec().ratio == 0.5
    alone = pc.PruningSpec(ratios={"a": 0.3})
    assert (alone.ratio, alone.resolved(has_calibration=False).allocator) == (0.0, "per_layer")
    both = pc.PruningSpec(ratio=0.5, ratios={"a": 0.3})
    assert (both.ratio, both.resolved(has_calibration=False).allocator) == (0.5, "uniform")
    assert pc.PruningSpec.from_dict(alone.to_dict()) == alone


def test_dict_round_trip_and_words_for_axes() -> None:
    spec = pc.PruningSpec(ratio=0.3, exclude=["head.*"], ratios={"conv*": 0.1}, reshape_axis=-2)  # type: ignore[arg-type]
    assert spec.reshape_axis == "outer"
    assert pc.PruningSpec.from_dict(spec.to_dict()) == spec


def test_errors_survive_pickling() -> None:
    error = pc.SpecError("what", "where", "fix")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert str(again) == str(error)
    assert type(again) is pc.SpecError
