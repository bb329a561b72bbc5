"""Blobs in a local folder or in an S3-compatible store, both through obstore.

A stored object is a head of ``MAGIC`` and the sha256 of the value, then the value. So one atomic
write carries both, in stores that keep no checksum of their own and in those that do.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from engine.errors import CorruptBlob, FailedDependency, RejectedInput
from persistence.ports import Blob

MAGIC = b"rpblob1\n"
HEAD_BYTES = len(MAGIC) + 32

BLOB_BYTES_MAX = 512_000_000
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,9}")

Result = TypeVar("Result")

if TYPE_CHECKING:
    from obstore.store import S3Config


class ObjectBlobs:
    """``persistence.ports.Blobs`` on anything that obstore reaches."""

    def __init__(
        self, store: ObjectStore, *, deadline_ms: int = 10_000, folder: Path | None = None
    ) -> None:
        self._store = store
        self._deadline_s = deadline_ms / 1000
        self._folder = folder  # of a local store: what is put there is synced to the disk

    async def put(self, key: str, value: bytes, *, new: bool = False) -> str:
        _refuse_no_key(key)
        if len(value) > BLOB_BYTES_MAX:
            problem = f"a blob of {len(value)} bytes is over the limit of {BLOB_BYTES_MAX}"
            raise RejectedInput("", problem, "put it in parts")
        checksum = sha256(value)
        stored = MAGIC + checksum.digest() + value

        async def act() -> None:
            mode: Literal["create", "overwrite"] = "create" if new else "overwrite"
            await self._store.put_async(key, stored, mode=mode, use_multipart=False)
            if self._folder is not None:
                await asyncio.to_thread(_sync, self._folder / key)

        try:
            await self._call(act)
        except AlreadyExistsError:
            raise RejectedInput("/key", f"{key} is there already", "choose another name") from None
        return checksum.hexdigest()

    async def get(self, key: str) -> bytes | None:
        _refuse_no_key(key)

        async def act() -> bytes:
            found = await self._store.get_async(key)
            return bytes(await found.bytes_async())

        try:
            stored = await self._call(act)
        except FileNotFoundError:
            return None
        checksum = _checksum_of(key, stored[:HEAD_BYTES])
        value = stored[HEAD_BYTES:]
        if sha256(value).hexdigest() != checksum:
            raise CorruptBlob(f"{key}: its bytes do not have the checksum they were put with")
        return value

    async def list(self, prefix: str) -> Sequence[Blob]:
        _refuse_no_key(prefix)

        async def act() -> list[Blob]:
            found: list[Blob] = []
            async for chunk in self._store.list(prefix):
                for each in chunk:
                    path, size = each["path"], each["size"]
                    if KEY.fullmatch(path) is None:
                        continue  # not ours: half-written by a process that fell
                    head = b""
                    if size >= HEAD_BYTES:
                        head = bytes(
                            await self._store.get_range_async(path, start=0, length=HEAD_BYTES)
                        )
                    found.append(Blob(path, size - HEAD_BYTES, _checksum_of(path, head)))
            return found

        return sorted(await self._call(act), key=lambda blob: blob.key)

    async def delete(self, key: str) -> bool:
        _refuse_no_key(key)

        async def act() -> None:
            await self._store.head_async(key)  # S3 deletes what is not there without a word
            await self._store.delete_async(key)

        try:
            await self._call(act)
        except FileNotFoundError:
            return False
        return True

    async def close(self) -> None:
        """Nothing is held open between two calls."""

    async def _call(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """Run one call within the deadline; what the store refuses is a failed dependency."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await act()
        except (AlreadyExistsError, FileNotFoundError):
            raise
        except TimeoutError:
            raise FailedDependency(f"blobs: no answer within {self._deadline_s:.1f} s") from None
        except (BaseError, OSError) as error:
            told = str(error).partition("\n")[0]
            raise FailedDependency(f"blobs: {told}") from error


def local_blobs(folder: Path, *, deadline_ms: int = 10_000) -> ObjectBlobs:
    """Return blobs in a folder, made when it is not there."""
    store = LocalStore(folder, mkdir=True)
    return ObjectBlobs(store, deadline_ms=deadline_ms, folder=folder)


def s3_blobs(
    url: str,
    *,
    endpoint: str = "",
    region: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    deadline_ms: int = 10_000,
) -> ObjectBlobs:
    """Return blobs in a bucket, ``s3://bucket/prefix``; an endpoint names who serves it.

    Without keys obstore takes those of the machine it runs on.
    """
    options: S3Config = {}
    if endpoint:
        options["endpoint"] = endpoint
    if region:
        options["region"] = region
    if access_key_id:
        options["access_key_id"] = access_key_id
        options["secret_access_key"] = secret_access_key
    wait = timedelta(milliseconds=deadline_ms)
    store = S3Store.from_url(
        url,
        config=options,
        client_options={"timeout": wait, "connect_timeout": wait, "allow_http": True},
        retry_config={"max_retries": 2, "retry_timeout": wait},
    )
    return ObjectBlobs(store, deadline_ms=deadline_ms)


def _refuse_no_key(key: str) -> None:
    if KEY.fullmatch(key) is None:
        raise RejectedInput(
            "/key", f"{key!r} is no key", "segments of letters, digits and ._- joined by /"
        )


def _checksum_of(key: str, head: bytes) -> str:
    if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
        raise CorruptBlob(f"{key}: is no blob of ours, or its head is lost")
    return head[len(MAGIC) :].hex()


def _sync(path: Path) -> None:
    """Have a file and its name reach the disk."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
