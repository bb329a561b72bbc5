"""The contract of blobs, against a local folder and against S3's protocol on the wire."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from engine.errors import CorruptBlob, FailedDependency, RejectedInput
from persistence.object_blobs import local_blobs, s3_blobs
from persistence.ports import Blob, Blobs
from tests.persistence.object_server import BUCKET, ObjectServer


@pytest.fixture
async def server() -> AsyncIterator[ObjectServer]:
    served = ObjectServer()
    yield served
    await served.stop()


async def bucket(server: ObjectServer, deadline_ms: int = 5_000) -> Blobs:
    return s3_blobs(
        f"s3://{BUCKET}/pre",
        endpoint=await server.start(),
        region="eu-1",
        access_key_id="id",
        secret_access_key="secret",
        deadline_ms=deadline_ms,
    )


@pytest.fixture(params=["folder", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, server: ObjectServer
) -> AsyncIterator[Blobs]:
    store: Blobs
    store = local_blobs(tmp_path / "blobs") if request.param == "folder" else await bucket(server)
    yield store
    await store.close()


def spoil(blobs_at: Path, server: ObjectServer, key: str, change: bytes) -> None:
    """Change what is stored behind the port's back."""
    if f"pre/{key}" in server.objects:
        server.objects[f"pre/{key}"] = change
    else:
        (blobs_at / "blobs" / key).write_bytes(change)


def stored(blobs_at: Path, server: ObjectServer, key: str) -> bytes:
    return server.objects.get(f"pre/{key}") or (blobs_at / "blobs" / key).read_bytes()


@pytest.mark.parametrize("value", [b"", b"x", bytes(range(256)) * 4096])
async def test_what_was_put_comes_back(blobs: Blobs, value: bytes) -> None:
    assert await blobs.put("models/acme/m1", value) == sha256(value).hexdigest()
    assert await blobs.get("models/acme/m1") == value


async def test_what_is_not_there_is_none(blobs: Blobs) -> None:
    assert await blobs.get("nothing") is None
    assert await blobs.list("nothing") == []
    assert await blobs.delete("nothing") is False


async def test_a_later_value_replaces_an_earlier_one_unless_it_must_be_new(blobs: Blobs) -> None:
    await blobs.put("a", b"1")
    await blobs.put("a", b"2")
    with pytest.raises(RejectedInput, match="there already"):
        await blobs.put("a", b"3", new=True)
    assert await blobs.get("a") == b"2"
    await blobs.put("b", b"4", new=True)
    assert await blobs.get("b") == b"4"


async def test_a_listing_tells_sizes_and_checksums_by_key(blobs: Blobs) -> None:
    for key in ("m/b", "m/a/x", "m/a/y", "n/a", "mm"):
        await blobs.put(key, key.encode())
    assert await blobs.list("m") == [
        Blob(key, len(key), sha256(key.encode()).hexdigest()) for key in ("m/a/x", "m/a/y", "m/b")
    ]
    assert await blobs.delete("m/a/x") is True
    assert [blob.key for blob in await blobs.list("m/a")] == ["m/a/y"]


async def test_bytes_that_are_not_what_was_put_are_never_handed_out(
    blobs: Blobs, tmp_path: Path, server: ObjectServer
) -> None:
    """One bit, a lost tail, a lost head, nothing at all, a stranger's file."""
    await blobs.put("m/a", b"the model")
    good = stored(tmp_path, server, "m/a")
    flipped = bytes([*good[:-1], good[-1] ^ 1])
    for bad in (flipped, good[:-1], good[8:], b"", b"a stranger's file, longer than any head is"):
        spoil(tmp_path, server, "m/a", bad)
        with pytest.raises(CorruptBlob):
            await blobs.get("m/a")
    spoil(tmp_path, server, "m/a", b"too short")
    with pytest.raises(CorruptBlob):
        await blobs.list("m")
    spoil(tmp_path, server, "m/a", good)
    assert await blobs.get("m/a") == b"the model"


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a//b", "a b", "a#1", "a/.b", "x" * 129])
async def test_what_is_no_key_is_refused(blobs: Blobs, key: str) -> None:
    with pytest.raises(RejectedInput):
        await blobs.put(key, b"1")
    with pytest.raises(RejectedInput):
        await blobs.get(key)


async def test_a_store_that_fails_is_a_failed_dependency_and_then_goes_on(
    server: ObjectServer,
) -> None:
    store = await bucket(server, deadline_ms=700)
    await store.put("a", b"1")
    server.failing = True
    with pytest.raises(FailedDependency):
        await store.put("a", b"2")
    with pytest.raises(FailedDependency):
        await store.get("a")
    server.failing = False
    assert await store.get("a") == b"1"
    assert server.unsigned == 0


async def test_nobody_there_is_a_failed_dependency(tmp_path: Path) -> None:
    nobody = s3_blobs(
        "s3://bucket",
        endpoint="http://127.0.0.1:9",
        region="eu-1",
        access_key_id="id",
        secret_access_key="secret",
        deadline_ms=500,
    )
    with pytest.raises(FailedDependency):
        await nobody.get("a")
    folder = tmp_path / "blobs"
    local = local_blobs(folder)
    (folder / "a").write_text("a file where a folder should be")
    with pytest.raises(FailedDependency):
        await local.put("a/b", b"1")


async def test_what_a_fallen_process_left_behind_is_not_listed(tmp_path: Path) -> None:
    store = local_blobs(tmp_path / "blobs")
    await store.put("m/a", b"1")
    (tmp_path / "blobs" / "m" / "b#1").write_bytes(b"half")
    assert [blob.key for blob in await store.list("m")] == ["m/a"]
