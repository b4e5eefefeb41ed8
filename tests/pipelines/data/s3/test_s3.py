"""Data sets out of a real store, through a network that fails."""

import hashlib
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, EndpointConnectionError
from PIL import Image

from pipelines.config import Data
from pipelines.data import load_data
from pipelines.data.s3 import Cache, cache, fetch, local_copy
from pipelines.data.s3.store import Remote, listing, open_client, parse
from pipelines.errors import DataError
from tests.pipelines.data.s3.conftest import CHUNK, SECRET, Proxy, forget

MB = 1 << 20
BIG = np.random.default_rng(0).integers(0, 256, 5 * MB + 12345, dtype=np.uint8).tobytes()


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RANGE", MB)


def put(admin: Any, bucket: str, **objects: bytes) -> None:
    for key, content in objects.items():
        admin.put_object(Bucket=bucket, Key=key.replace("__", "/"), Body=content)


def npz_of(seed: int) -> bytes:
    file, rng = io.BytesIO(), np.random.default_rng(seed)
    np.savez(file, x=rng.random((60, 3)).astype(np.float32), y=np.arange(60) % 3)
    return file.getvalue()


def test_a_file_is_fetched_once_and_again_when_it_is_another(admin: Any, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    put(admin, bucket, sets__mine=npz_of(0))
    request = Data(name="npz", path=f"s3://{bucket}/sets/mine")
    (tmp_path / "local.npz").write_bytes(npz_of(0))
    first = load_data(request)
    assert first.digest == load_data(Data(name="npz", path=str(tmp_path / "local.npz"))).digest
    proxy.reset()
    assert load_data(request).digest == first.digest
    assert proxy.sent < 2000  # a listing, no content
    put(admin, bucket, sets__mine=npz_of(1))
    assert load_data(request).digest != first.digest
    put(admin, bucket, sets__mine=b"no archive")
    with pytest.raises(DataError, match=f"(?s)cannot be read.*s3://{bucket}/sets/mine"):
        load_data(request)


def test_a_prefix_is_a_folder(admin: Any, bucket: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(12):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(file, "PNG")
        for root in ("pictures", "pictures-of-others"):
            admin.put_object(Bucket=bucket, Key=f"{root}/{'ab'[n % 2]}/{n}.png", Body=file.getvalue())
        path = tmp_path / "here" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
    options: dict[str, Any] = {"name": "image-folder", "images": {"size": 5}}
    local = load_data(Data(path=str(tmp_path / "here"), **options))
    for uri in (f"s3://{bucket}/pictures", f"s3://{bucket}/pictures/"):
        assert load_data(Data(path=uri, **options)).digest == local.digest


@pytest.mark.parametrize("part_size", [None, 5 * MB], ids=["one part", "upload in parts"])
def test_ranges_side_by_side_make_the_object(admin: Any, bucket: str, part_size: int | None) -> None:
    config = TransferConfig(multipart_threshold=part_size or 64 * MB, multipart_chunksize=part_size or 64 * MB)
    admin.upload_fileobj(io.BytesIO(BIG), bucket, "big", Config=config)
    (remote,) = listing(open_client(), f"s3://{bucket}/big")
    assert ("-2" in remote.etag) == (part_size is not None)
    path = local_copy(f"s3://{bucket}/big", 1)
    assert path.name == "big"
    assert path.read_bytes() == BIG
    assert {p.name for p in path.parent.iterdir()} == {"big"}  # no parts are left
    fetcher, copy = fetch.Fetcher(open_client(), bucket), path.with_name("copy")
    copy.write_bytes(BIG)
    assert fetcher._is_right(remote, copy)
    copy.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    assert not fetcher._is_right(remote, copy)
    put(admin, bucket, empty=b"")
    assert local_copy(f"s3://{bucket}/empty", 1).read_bytes() == b""


def test_a_cut_connection_is_taken_up_where_it_broke(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, big=BIG)
    proxy.on_answer = lambda sent, chunk: chunk if sent < 600_000 else None
    assert local_copy(f"s3://{bucket}/big", 1).read_bytes() == BIG
    assert proxy.connections > 8
    assert proxy.sent < 1.5 * len(BIG)  # nothing was fetched all over


def test_it_gives_up_after_some_tries_and_the_next_run_fetches_the_rest(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, big=BIG)
    proxy.on_answer = lambda sent, chunk: chunk if proxy.sent < 2 * MB else None
    with pytest.raises(DataError, match="again and again"):
        local_copy(f"s3://{bucket}/big", 1)
    came = proxy.sent
    assert 2 * MB <= came < 3 * MB
    proxy.reset()
    assert local_copy(f"s3://{bucket}/big", 1).read_bytes() == BIG
    assert proxy.sent < len(BIG) - came + 2 * MB  # each of the ranges may have lost a chunk


def test_what_came_of_other_objects_stays_when_one_fails(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, set__a=BIG[:MB], set__b=BIG[: 2 * MB], set__c=BIG[: 3 * MB])
    proxy.on_answer = lambda sent, chunk: chunk if proxy.sent < 3 * MB else None
    with pytest.raises(DataError, match="again and again"):
        local_copy(f"s3://{bucket}/set", 1)
    came = proxy.sent
    proxy.reset()
    folder = local_copy(f"s3://{bucket}/set", 1)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a": BIG[:MB], "b": BIG[: 2 * MB], "c": BIG[: 3 * MB]}
    assert proxy.sent < 6 * MB - came + 2 * MB


def test_a_killed_process_leaves_what_came_to_the_next(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, big=BIG)
    stuck = threading.Event()

    def stall(_sent: int, chunk: bytes) -> bytes:
        if proxy.sent > 4 * MB:
            stuck.set()
            time.sleep(20)
        return chunk

    proxy.on_answer = stall
    child = os.fork()
    if child == 0:
        local_copy(f"s3://{bucket}/big", 1)
        os._exit(0)
    try:
        assert stuck.wait(60)
        time.sleep(0.3)  # for what is on its way
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert proxy.sent < len(BIG)
    proxy.reset()
    assert local_copy(f"s3://{bucket}/big", 1).read_bytes() == BIG
    assert proxy.sent < 0.8 * len(BIG)


def test_an_object_that_changes_meanwhile_is_read_anew(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, set__big=BIG, set__small=b"the same")
    other = BIG[::-1]
    cuts: list[int] = []

    def change(sent: int, chunk: bytes) -> bytes | None:
        if proxy.sent < 2 * MB or len(cuts) >= 3:
            return chunk
        if not cuts:
            put(admin, bucket, set__big=other)
        cuts.append(sent)
        return None  # so that some ranges must be asked for again

    proxy.on_answer = change
    folder = local_copy(f"s3://{bucket}/set", 1)
    assert cuts
    assert (folder / "big").read_bytes() == other  # and no mixture
    assert (folder / "small").read_bytes() == b"the same"


def test_no_byte_of_another_version_is_kept(admin: Any, bucket: str, tmp_path: Path) -> None:
    put(admin, bucket, big=BIG)
    client = open_client()
    (listed,) = listing(client, f"s3://{bucket}/big")
    put(admin, bucket, big=BIG[::-1])
    with pytest.raises(fetch.Changed):
        fetch.Fetcher(client, bucket)._fetch_range(listed, 0, MB, tmp_path / "part")
    assert not (tmp_path / "part").exists()  # the store itself refused
    admin.delete_object(Bucket=bucket, Key="big")
    with pytest.raises(fetch.Changed):
        fetch.Fetcher(client, bucket)._fetch_range(listed, 0, MB, tmp_path / "part")


def test_an_object_that_never_rests_is_an_error(
    admin: Any, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(admin, bucket, big=BIG)
    original, count = cache.listing, iter(range(100))

    def listing_then_change(client: Any, uri: str) -> tuple[Remote, ...]:
        found = original(client, uri)
        put(admin, bucket, big=BIG + bytes([next(count)]))
        return found

    monkeypatch.setattr(cache, "listing", listing_then_change)
    with pytest.raises(DataError, match=r"changed 3 times"):
        local_copy(f"s3://{bucket}/big", 1)
    assert next(count) == 3


def flipped(chunk: bytes) -> bytes:
    """With another last byte, where that is of a content: a network that TCP's checksum did not save."""
    return chunk[:-1] + bytes([chunk[-1] ^ 1]) if len(chunk) == CHUNK else chunk


def test_wrong_bytes_are_noticed(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, big=BIG)
    harmed = []

    def once(sent: int, chunk: bytes) -> bytes:
        if harmed or flipped(chunk) == chunk:
            return chunk
        harmed.append(sent)
        return flipped(chunk)

    proxy.on_answer = once
    assert local_copy(f"s3://{bucket}/big", 1).read_bytes() == BIG
    assert harmed
    put(admin, bucket, bad=BIG)
    proxy.on_answer = lambda _sent, chunk: flipped(chunk)
    with pytest.raises(DataError, match="does not have its checksum"):
        local_copy(f"s3://{bucket}/bad", 1)


@pytest.mark.parametrize("harm", ["cut short", "other bytes", "removed"])
def test_a_broken_file_in_the_cache_is_never_used(admin: Any, bucket: str, harm: str) -> None:
    put(admin, bucket, set__a=BIG[:MB], set__b=BIG[MB : 2 * MB])
    folder = local_copy(f"s3://{bucket}/set", 1)
    stat = (folder / "a").stat()
    if harm == "removed":
        (folder / "a").unlink()
    else:
        (folder / "a").write_bytes(BIG[: MB - 1] + (b"" if harm == "cut short" else bytes([BIG[MB - 1] ^ 1])))
    if harm == "cut short":
        os.utime(folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = local_copy(f"s3://{bucket}/set", 1)
    assert (again / "a").read_bytes() == BIG[:MB]
    assert (again / "b").read_bytes() == BIG[MB : 2 * MB]


def test_a_store_that_fails_in_passing_proves_nothing(admin: Any, bucket: str, tmp_path: Path) -> None:
    """The bytes are wrong, and the question how the object was encrypted goes unanswered."""
    admin.put_object(Bucket=bucket, Key="a", Body=b"right!!!")
    remote = Remote("a", "a", 8, admin.head_object(Bucket=bucket, Key="a")["ETag"])
    (tmp_path / "a").write_bytes(b"corrupt!")
    answer = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    for failure in (ClientError(answer, "HeadObject"), EndpointConnectionError(endpoint_url="http://x")):
        fetcher = fetch.Fetcher(Failing(failure), bucket)
        with pytest.raises(DataError):
            fetcher._is_right(remote, tmp_path / "a")


class Failing:
    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def head_object(self, **_: object) -> None:
        raise self.failure


def test_what_did_not_change_is_not_fetched_again(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, set__a=BIG[:MB], set__b=b"first")
    local_copy(f"s3://{bucket}/set", 1)
    put(admin, bucket, set__b=b"second", set__c=b"third")
    proxy.reset()
    folder = local_copy(f"s3://{bucket}/set", 1)
    assert proxy.sent < MB // 2
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a": BIG[:MB], "b": b"second", "c": b"third"}


def test_the_cache_keeps_to_its_size_and_drops_the_oldest(admin: Any, bucket: str, tmp_path: Path) -> None:
    put(admin, bucket, a=BIG[:MB], b=BIG[:MB], c=BIG[:MB], huge=BIG)
    small = Cache(tmp_path / "small", int(2.5 * MB))
    paths = {key: small.local_copy(f"s3://{bucket}/{key}") for key in "ab"}
    with pytest.raises(DataError, match=r"(?s)in use.*data\.cache_gb"):
        small.local_copy(f"s3://{bucket}/c")  # this process uses both others
    forget()
    with pytest.raises(DataError, match=r"do not fit"):
        small.local_copy(f"s3://{bucket}/huge")
    assert all(path.exists() for path in paths.values())  # nothing was thrown away in vain
    small.local_copy(f"s3://{bucket}/a")
    forget()
    assert small.local_copy(f"s3://{bucket}/c").read_bytes() == BIG[:MB]
    assert paths["a"].exists()
    assert not paths["b"].exists()


def test_a_cache_that_cannot_be_written_is_named(admin: Any, bucket: str, tmp_path: Path) -> None:
    put(admin, bucket, a=b"x")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"(?s)cache cannot be used.*XDG_CACHE_HOME"):
        Cache(tmp_path / "file", MB).local_copy(f"s3://{bucket}/a")


def test_many_at_once_fetch_once(admin: Any, bucket: str, proxy: Proxy) -> None:
    put(admin, bucket, big=BIG)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: local_copy(f"s3://{bucket}/big", 1), range(4)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == BIG
    assert proxy.sent < 1.1 * len(BIG)


@pytest.mark.parametrize(
    ("variables", "path", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "set", "(?s)no credentials.*AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "set", "(?s)half of them.*AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "set", "secret does not belong to the access key"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "set", "does not know the access key"),
        ({"AWS_PROFILE": "nobody"}, "set", "no credentials could be had"),
        ({}, "sett", "(?s)no such key or prefix.*did you mean 'set'"),
        ({}, "set/a.npy", "(?s)no such key or prefix.*did you mean 'set/a.npz'"),
        ({"AWS_ENDPOINT_URL_S3": "http://user:hunter2@127.0.0.1:9"}, "set", r"(?s)cannot be reached.*http://127.0.0.1:9"),
        ({"AWS_ENDPOINT_URL_S3": "hunter2"}, "set", r"(?s)no address.*AWS_ENDPOINT_URL_S3"),
    ],
    ids=["no credentials", "half", "wrong secret", "unknown", "no profile", "no prefix", "no key", "nobody there", "no url"],
)
def test_what_is_wrong_is_named_and_no_secret_is(
    admin: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None], path: str, message: str
) -> None:
    put(admin, bucket, **{"set__a.npz": b"x"})
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=message) as caught:
        local_copy(f"s3://{bucket}/{path}", 1)
    for secret in (SECRET, "wrong-secret", "hunter2"):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.args)


def test_a_bucket_that_is_not_there(proxy: Proxy) -> None:
    with pytest.raises(DataError, match="no such bucket"):
        local_copy("s3://nowhere-at-all/key", 1)


@pytest.mark.parametrize("uri", ["s3://", "s3://b", "s3:/bucket/key", "s3://Up_per/key", "s3:///key"])
def test_an_address_that_is_none(uri: str) -> None:
    with pytest.raises(DataError, match="names no place"):
        parse(uri)


@pytest.mark.parametrize("key", ["set/../../etc/passwd", "set//a", "set/./a", "set/a\\b"])
def test_a_key_that_would_leave_its_folder_is_refused(key: str) -> None:
    class Client:
        """A hostile store; a real one cleans such keys."""

        def list_objects_v2(self, **_: Any) -> dict[str, Any]:
            return {}

        def get_paginator(self, _: str) -> Any:
            return self

        def paginate(self, **_: Any) -> list[dict[str, Any]]:
            return [{"Contents": [{"Key": key, "Size": 1, "ETag": hashlib.sha256().hexdigest()}]}]

    with pytest.raises(DataError, match="cannot be a file name"):
        listing(Client(), "s3://bucket/set")
