"""Pruning by channel index: the text, and that a removal reaches every coupled layer."""

import pytest

import pruning_core as pc
from pruning_core.channels import parse_channels
from tests.awkward import AWKWARD
from tests.models import NETS


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("105, 8, 9, 11-13", (8, 9, 11, 12, 13, 105)),
        ("3 1  2", (1, 2, 3)),
        ("4,4,2-4", (2, 3, 4)),
        ("0", (0,)),
        ([5, 1, 5], (1, 5)),
        ("", ()),
    ],
)
def test_text(text: str | list[int], want: tuple[int, ...]) -> None:
    assert parse_channels(text, "index") == want


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1, x2, 3", "'x2' at column 4"),
        ("1-", "'1-' at column 1"),
        ("9-4", "runs backwards"),
        ("-3", "'-3' at column 1"),
        ("2.5", "'2.5' at column 1"),
        ([1, -2], "-2 is not a channel number"),
        ("5, 1-3000000000", "'1-3000000000' at column 4 is out of range"),
        ("0 9" + "9" * 5000, "at column 3 is out of range"),
    ],
)
def test_bad_text_names_token_and_column(text: str | list[int], says: str) -> None:
    with pytest.raises(pc.SpecError) as caught:
        pc.PruningSpec(index={"conv": text})  # type: ignore[dict-item]
    assert says in caught.value.what
    assert caught.value.where == "index['conv']"


@pytest.mark.parametrize("layer", ["stem", "conv2"])
def test_a_removal_reaches_every_coupled_layer(layer: str) -> None:
    net = NETS["residual"]
    spec = pc.PruningSpec(index={layer: "0, 3-5"})  # type: ignore[dict-item]
    plan = pc.prune(net.build(), net.inputs(), spec, check="numeric").plan
    cuts = {c.tensor.removesuffix(".weight"): c for c in plan.slices if c.axis == 0 and c.tensor.endswith("weight")}
    assert set(cuts) == {"stem", "conv2", "bn2"}
    for cut in cuts.values():
        assert set(range(cut.width)) - set(cut.keep) == {0, 3, 4, 5}


def test_an_index_in_one_head_reaches_all_heads_of_queries_keys_and_values() -> None:
    case = AWKWARD["attention_fused_qkv"]
    plan = pc.prune(case.build(), case.inputs(), pc.PruningSpec(index={"qkv": "0"}), check="numeric").plan  # type: ignore[dict-item]
    (cut,) = [c for c in plan.slices if c.tensor == "qkv.weight" and c.axis == 0]
    gone = sorted(set(range(cut.width)) - set(cut.keep))
    head = gone[1] - gone[0]
    assert gone == list(range(0, cut.width, head))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"conv2": "32"}, "channel 32 is out of range"),
        ({"conv2": "0-31"}, "no channel would be left"),
        ({"conv22": "1"}, "there is no layer 'conv22'"),
        ({"fc": "1"}, "reaches the model output"),
    ],
)
def test_what_cannot_be(index: dict[str, str], says: str) -> None:
    net = NETS["conv_stack"]
    with pytest.raises(pc.SpecError) as caught:
        pc.plan(net.build(), net.inputs(), pc.PruningSpec(index=index))  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_coupled_layers_that_disagree() -> None:
    net = NETS["residual"]
    with pytest.raises(pc.SpecError, match="coupled layers name different channels"):
        pc.plan(net.build(), net.inputs(), pc.PruningSpec(index={"stem": "1", "conv2": "2"}))  # type: ignore[dict-item]


def test_index_survives_json() -> None:
    net = NETS["conv_stack"]
    plan = pc.plan(net.build(), net.inputs(), pc.PruningSpec(index={"conv2": "1, 5-7"}))  # type: ignore[dict-item]
    assert pc.PruningPlan.from_json(plan.to_json()) == plan
