import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import SourceError
from pipelines.exported_graph import read_program
from pipelines.pt2_archive import check_archive
from tests.pipelines.exported import exported, small


class Run:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


class Recurrent(nn.Module):
    """Constants, a strided weight and a computed size."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 6, dropout=0.2, num_layers=2, batch_first=True), nn.Linear(12, 10)
        self.head.weight = nn.Parameter(torch.randn(12, 10).t())

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x.squeeze(1))
        n, length, width = y.shape
        both = y.reshape(n * length // 2, 2 * width) + torch.arange(2 * width)
        return self.head(both).reshape(n, -1, 10).mean(1)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(small(), tmp_path_factory.mktemp("good") / "m.pt2")


def rewritten(good: Path, path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def unpickling(thing: object, saved: bool) -> bytes:
    if not saved:
        return pickle.dumps(thing)
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def in_json(text: str, key: str, value: str) -> bytes:
    def walk(part: Any) -> bool:
        """Changes the first one."""
        if isinstance(part, dict):
            if key in part and (key != "target" or "inputs" in part):
                part[key] = value
                return True
            return any(map(walk, part.values()))
        return isinstance(part, list) and any(map(walk, part))

    graph = json.loads(text)
    assert walk(graph)
    return json.dumps(graph).encode()


@pytest.mark.parametrize("kind", ["sample", "weight", "symbol", "symbol attribute", "operator", "extra", "no zip"])
def test_code_in_an_archive_does_not_run(good: Path, tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "it-ran"

    def change(name: str, content: bytes) -> bytes:
        if kind == "sample" and "sample_inputs" in name:
            return unpickling((Run(trace),), saved=True)
        if kind == "weight" and name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        if kind == "weight" and name.endswith("weight_0"):
            return unpickling(Run(trace), saved=True)
        if kind == "symbol" and name.endswith("model.json"):
            return in_json(content.decode(), "expr_str", f"open('{trace}', 'w')")
        if kind == "symbol attribute" and name.endswith("model.json"):
            return in_json(content.decode(), "expr_str", f"Symbol('s1').__class__.__init__('{trace}')")
        if kind == "operator" and name.endswith("model.json"):
            return in_json(content.decode(), "target", "torch.serialization.load")
        if kind == "extra" and name.endswith("byteorder"):
            return unpickling(Run(trace), saved=False)
        return content

    path = rewritten(good, tmp_path / "bad.pt2", change)
    if kind == "no zip":
        path.write_bytes(unpickling(Run(trace), saved=False))
    with pytest.raises(SourceError, match="is refused"):
        read_program(path)
    assert not trace.exists()
    if kind in ("sample", "weight"):  # torch itself would run it
        with pytest.raises(Exception):  # noqa: B017, PT011
            torch.export.load(path)
        assert trace.exists()


@pytest.mark.filterwarnings("ignore")  # the exporter's own words about its LSTM
def test_what_torch_writes_is_accepted(good: Path, tmp_path: Path) -> None:
    check_archive(good)
    check_archive(rewritten(good, tmp_path / "same.pt2", lambda _, content: content))
    recurrent = exported(Recurrent().eval(), tmp_path / "lstm.pt2")
    check_archive(recurrent)
    assert b"expr_str" in zipfile.ZipFile(recurrent).read(
        next(n for n in zipfile.ZipFile(recurrent).namelist() if "models/" in n)
    )
