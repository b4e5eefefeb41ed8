"""Pieces: the same samples, in little memory; second moments do not notice."""

import torch
from torch import Tensor, nn

from pruning_core.calibration import Batch, Calibration
from pruning_core.inputs import ExampleInputs
from pruning_core.observe import moments
from pruning_core.observe.gram import sample_rows
from pruning_core.observe.moments import input_moments
from pruning_core.observe.pieces import pieces
from pruning_core.trace import real_twin
from tests.pruning_core.observe.nets import NETS, subject_of

IMAGE = 8 * 7 * 7 * 4 * 2  # bytes that the BatchNorm reads and makes for one image


def joined(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.inputs.args[0] for batch in batches])


def test_pieces_are_the_samples_in_order_and_fit() -> None:
    build, shape = NETS["conv"]
    x = torch.randn(shape)
    trace = subject_of(build(), x[:2]).trace
    found = list(pieces(Calibration([x[:7], x[7:]]), trace, limit=2 * IMAGE))
    assert [len(piece) for piece in found] == [2, 2, 2, 1, 2, 1]
    assert torch.equal(joined(found), x)
    assert found[1].inputs.args[0].data_ptr() == x[2:].data_ptr()  # no copy
    assert [len(piece) for piece in pieces(Calibration([x]), trace, limit=10 * IMAGE)] == [10]
    assert [len(piece) for piece in pieces(Calibration([x]), trace, limit=1)] == [1] * 10
    assert [len(piece) for piece in pieces(Calibration([x[:9]]), trace, limit=4 * IMAGE)] == [3, 3, 3]  # not one alone


def test_larger_images_than_the_example_make_smaller_pieces() -> None:
    layer = nn.Conv2d(3, 5, 3)
    trace = subject_of(layer, torch.randn(1, 3, 8, 8)).trace
    limit = 4 * (3 * 64 + 5 * 36)
    small, large = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 16, 8)
    assert len(list(pieces(Calibration([small]), trace, limit=2 * limit))) == 2
    assert len(list(pieces(Calibration([large]), trace, limit=2 * limit))) == 4


def test_what_has_no_entry_per_sample_goes_to_every_piece() -> None:
    trace = subject_of(nn.Linear(4, 4), torch.randn(2, 4)).trace
    table = torch.randn(3, 4)
    batch = Batch(ExampleInputs.of({"x": torch.randn(5, 4), "table": table}), target=torch.zeros(5))
    found = list(pieces([batch], trace, limit=1))
    assert len(found) == 5
    assert all(piece.inputs.kwargs["table"].data_ptr() == table.data_ptr() for piece in found)


def test_second_moments_of_all_rows_whatever_the_pieces(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    build, shape = NETS["conv"]
    x = torch.randn(shape)
    subject = subject_of(build(), x[:2])
    whole = input_moments(real_twin(subject.model), subject.trace, Calibration(x), len(x))
    monkeypatch.setattr(moments, "pieces", lambda batches, trace: pieces(batches, trace, limit=3 * IMAGE))
    cut = input_moments(real_twin(subject.model), subject.trace, Calibration([x[:4], x[4:]]), len(x))
    assert whole.keys() == cut.keys()
    for call, gram in whole.items():
        assert cut[call].rows == gram.rows
        torch.testing.assert_close(cut[call].xx, gram.xx, rtol=1e-5, atol=1e-5)
    first = x.permute(0, 2, 3, 1).reshape(-1, 3).double()
    torch.testing.assert_close(whole[min(whole)].xx[0, :3, :3], first.T @ first, rtol=1e-5, atol=1e-4)


def test_sampled_second_moments_are_unbiased(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The mean over many seeds nears the mean over all rows, closer than any of them: 400 draws, 20 times closer."""
    build, shape = NETS["conv"]
    x = torch.randn(shape)
    subject = subject_of(build(), x[:2])
    full = input_moments(real_twin(subject.model), subject.trace, Calibration(x), len(x))
    first = min(full)
    want = full[first].xx / full[first].rows
    rows = x.permute(0, 2, 3, 1).reshape(-1, 3)
    drawn = []
    for seed in range(400):
        chosen = rows[sample_rows(len(rows), 60, torch.Generator().manual_seed(seed))].double()
        with_one = torch.cat([chosen, torch.ones(len(chosen), 1)], dim=1)
        drawn.append(with_one.T @ with_one / len(chosen))
    typical = float(torch.stack([(d - want).norm() for d in drawn]).mean())
    assert float((torch.stack(drawn).mean(0) - want).norm()) < typical / 8
    monkeypatch.setattr(moments, "ROWS", 60)
    some = input_moments(real_twin(subject.model), subject.trace, Calibration([x[:5], x[5:]]), len(x), seed=1)[first]
    assert 50 <= some.rows <= 62
    assert float((some.xx[0] / some.rows - want[0]).norm()) < 4 * typical
