"""File storage in a directory, a bucket or memory.

Nothing here holds a whole video file in memory. Keys are made by the gateway, never by a client. The database has the
content type, checksum and project of a file; the store knows bytes only.
"""

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from app import errors
from app.media.bucket import open_bucket, reason_of
from app.media.sniff import HEAD_BYTES, sniff
from app.media.turns import Shared
from app.media.uploads import Upload
from app.settings import ConfigurationError, Settings, make_data_dir
from app.telemetry.logs import log
from app.telemetry.metrics import STORE_ERRORS
from app.video import Media

PART_BYTES = 8 * 2**20
PARTS_AT_ONCE = 2
PIECE_BYTES = 2**20
"""Files are read in ranges of this size, so that a slow client never keeps a connection to the bucket open."""
HAND_OVER_BYTES = 2**20
COPIES_AT_ONCE = 2
"""Files of a bucket copied to the local disk at a time; a copy is kept while pictures are made of it."""
ABORT_S = 10
"""Seconds that a failed upload may take to clean up."""
MAX_PRESIGNED_S = 7 * 86_400
OPERATIONS = ("write", "read", "delete", "list", "sign")
"""Operations by which errors of the store are counted."""

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*")


class StorageUnavailable(errors.ServiceUnavailable):
    """The directory or bucket cannot be written or read at present: full, read-only, unreachable."""

    default_code = "storage_unavailable"


class IncompleteFile(errors.GatewayError):
    """A file that is empty or not of the expected size; nothing of it was kept."""

    status_code = 502
    default_code = "incomplete_file"
    retryable = True


class MissingFile(errors.NotFound):
    """No file has that key; the key is for the log and not for the client."""

    default_code = "file_not_found"

    def __init__(self, key: str) -> None:
        super().__init__("the file is not there any more")
        self.key = key


@dataclass(frozen=True)
class StoredFile:
    """A file that is completely in the store."""

    key: str
    size: int
    sha256: str
    """Hexadecimal."""
    head: bytes
    """The first bytes, for `sniff`."""


class Store:
    """Files by key in a directory, a bucket or memory."""

    def __init__(self, objects: ObjectStore, root: Path | None = None) -> None:
        self.making: dict[str, Shared] = {}
        """Pictures being made, by key; see `pictures.make_variant`."""
        self._objects = objects
        self._root = root
        self._copies = asyncio.Semaphore(COPIES_AT_ONCE)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Open the configured store. Raises `ConfigurationError`."""
        url = settings.storage_url or ""
        if url and not url.startswith("file://"):
            return cls(open_bucket(url))
        root = directory_of(settings)
        try:
            if not url:
                make_data_dir(settings.data_dir)
                _make_private(root)
            return cls(LocalStore(root, mkdir=True, automatic_cleanup=True), root)
        except (BaseError, OSError, ValueError) as error:
            setting = "GATEWAY_STORAGE_URL" if url else "GATEWAY_DATA_DIR"
            raise ConfigurationError(f"{setting}: cannot write to {root}: {reason_of(error)}") from error

    async def put(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        max_bytes: int,
        content_type: str | None = None,
        expected_size: int | None = None,
    ) -> StoredFile:
        """Store a stream; after any error nothing of it is left, and an older file of that key is unchanged.

        A bucket gets the type that the first bytes show, else `content_type`, for clients that read from it directly.
        Raises `PayloadTooLarge`, `IncompleteFile`, `StorageUnavailable`, and whatever `chunks` raises.
        """
        _checked(key)
        digest, size, head = hashlib.sha256(), 0, b""

        def write(what: "bytes | _Feed") -> "Awaitable[obstore.PutResult]":
            return self._write(key, what, sniff(head) or content_type)

        feed = _Feed(write)
        try:
            async with aclosing(_coalesced(chunks)) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    if size > max_bytes:
                        raise errors.PayloadTooLarge(f"the file is larger than {max_bytes} bytes")
                    head = head or bytes(piece[:HEAD_BYTES])
                    with _translated("write", key, bucket=True):
                        await feed.send(piece)
            if size == 0 or expected_size not in (None, size):
                raise IncompleteFile(f"the file has {size} bytes, expected {expected_size or 'at least 1'}")
            with _translated("write", key, bucket=True):
                await feed.finish()
        except BaseException as error:
            await feed.break_off(error)
            raise
        return StoredFile(key, size, digest.hexdigest(), head)

    def _write(self, key: str, what: "bytes | _Feed", content_type: str | None) -> "Awaitable[obstore.PutResult]":
        attributes = {"Content-Type": content_type} if content_type and self._root is None else None
        return obstore.put_async(
            self._objects, key, what, attributes=attributes, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to, not including, `end`. Raises `MissingFile`, `StorageUnavailable`."""
        if end is None:
            end = await self.stat(key)
            if end is None:
                raise MissingFile(key)
        while start < end:
            piece = await self.read(key, start, min(PIECE_BYTES, end - start))
            if not piece:
                raise StorageUnavailable("the file ends too early")
            yield piece
            start += len(piece)

    async def read(self, key: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`, which must be inside the file."""
        if length <= 0:
            return b""
        with _translated("read", key):
            return bytes(await obstore.get_range_async(self._objects, _checked(key), start=start, length=length))

    async def stat(self, key: str) -> int | None:
        """Return the size in bytes, None when there is no such file."""
        try:
            with _translated("read", key):
                return (await obstore.head_async(self._objects, _checked(key)))["size"]
        except MissingFile:
            return None

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete files; missing ones are ignored."""
        for key in keys:
            with suppress(MissingFile), _translated("delete", key):
                await obstore.delete_async(self._objects, _checked(key))

    async def delete_prefix(self, prefix: str, *, but: Collection[str] = ()) -> None:
        """Delete all files of the folder `prefix`, also the remains of interrupted uploads, except the files in `but`
        and the files beside them."""
        folder = _checked(prefix.rstrip("/"))
        if self._root is not None:
            with suppress(MissingFile), _translated("delete", prefix):
                await asyncio.to_thread(_delete_files, self._root, folder, tuple(but))
            return
        with _translated("delete", prefix, bucket=True):
            async for page in obstore.list(self._objects, folder):
                left = [found["path"] for found in page if not found["path"].startswith(tuple(but))]
                if left:
                    await obstore.delete_async(self._objects, left)

    async def try_to_delete(self, *folders: str) -> bool:
        """Delete all files of the folders. False: the storage failed, which is logged; the caller tries again later."""
        try:
            for folder in folders:
                await self.delete_prefix(folder)
        except StorageUnavailable as error:
            log.warning("files not deleted, repeated later", folders=folders, error=error.message)
            return False
        return True

    async def written_before(self, prefix: str, moment: datetime) -> list[str]:
        """Return the keys in the folder `prefix` that were last written before `moment`."""
        folder = _checked(prefix.rstrip("/"))
        with _translated("list", prefix):
            pages = [page async for page in obstore.list(self._objects, folder)]
        written = [found["path"] for page in pages for found in page if found["last_modified"] < moment]
        return [key for key in written if KEY.fullmatch(key)]  # others are not files of ours, such as .nfs0001

    def local_path(self, key: str) -> Path | None:
        """The path of a file on this machine, existing or not; None for a bucket."""
        return self._root / _checked(key) if self._root is not None else None

    @asynccontextmanager
    async def as_file(self, key: str) -> AsyncIterator[Path]:
        """The file as a local path, for programs that need one; read-only. Raises `MissingFile`."""
        local = self.local_path(key)
        if local is not None:
            if not await asyncio.to_thread(local.is_file):
                raise MissingFile(key)
            yield local
            return
        async with self._copies:
            with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
                copy = Path(folder) / "video"
                with copy.open("wb") as file:
                    async for piece in self.open(key):
                        await asyncio.to_thread(file.write, piece)
                yield copy

    async def presigned(self, key: str, ttl_s: int) -> str | None:
        """A URL at the bucket that works for `ttl_s` seconds; None if the gateway has to serve the file."""
        if ttl_s < 1 or not isinstance(self._objects, S3Store | GCSStore | AzureStore):
            return None
        ttl = timedelta(seconds=min(ttl_s, MAX_PRESIGNED_S))
        try:
            return await obstore.sign_async(self._objects, "GET", _checked(key), ttl)
        except BaseError as error:  # credentials that can read and write, but not sign
            STORE_ERRORS.labels("sign").inc()
            log.warning("bucket URL not signed", reason=reason_of(error))
            return None

    async def presigned_origin(self) -> str | None:
        """Scheme, host and port of presigned URLs, for policies of pages; None if there are none."""
        url = await self.presigned("origin", 60)
        return None if url is None else "{0.scheme}://{0.netloc}".format(urlsplit(url))


def directory_of(settings: Settings) -> Path:
    """The directory of a store that is no bucket."""
    return Path(unquote(urlsplit(settings.storage_url or "").path) or settings.data_dir / "media").absolute()


def _make_private(folder: Path) -> None:
    """Create the folder for this user alone, and correct the mode of one that others can enter, as earlier releases
    made it. A link to another folder is left as it is."""
    if not folder.is_symlink():
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            with suppress(PermissionError):  # of a mounted volume with another owner
                folder.chmod(0o700)
                log.info("directory made private", path=str(folder))


class _Feed:
    """Adapter from push (send) to the async iterator obstore wants: only the task that owns the source reads it.

    A file shorter than one part goes in one PUT: it is there or not, even when this process is killed. Of an upload in
    parts the bucket keeps the parts it has, invisible, until one of its lifecycle rules deletes them.
    """

    def __init__(self, write: "Callable[[bytes | _Feed], Awaitable[obstore.PutResult]]") -> None:
        self._write = write
        self._short = bytearray()
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(1)
        self._writing: asyncio.Future[obstore.PutResult] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        item = await self._queue.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item

    async def send(self, item: bytes) -> None:
        """Wait until the upload has room. Raises the error that ended the upload."""
        if self._writing is None:
            self._short += item
            if len(self._short) < PART_BYTES:
                return
            item = bytes(self._short)
            self._short.clear()
            self._begin(self)
        await self._put(item)

    async def finish(self) -> None:
        """Wait until the file is in the store."""
        if self._writing is None:
            writing = self._begin(bytes(self._short))
        else:
            writing = self._writing
            await self._put(None)
        await asyncio.shield(writing)

    async def break_off(self, error: BaseException) -> None:
        """Abort the upload and give it a little time to clean up."""
        if self._writing is None:
            return
        with suppress(asyncio.QueueEmpty):
            self._queue.get_nowait()
        self._queue.put_nowait(RuntimeError(f"the source failed ({type(error).__name__})"))
        try:
            await asyncio.wait({self._writing}, timeout=ABORT_S)
        finally:
            self._writing.cancel()

    def _begin(self, what: "bytes | _Feed") -> "asyncio.Future[obstore.PutResult]":
        self._writing = asyncio.ensure_future(self._write(what))
        self._writing.add_done_callback(self._ended)
        return self._writing

    def _ended(self, writing: "asyncio.Future[obstore.PutResult]") -> None:
        """Release a sender that waits for room."""
        self._closed = True
        _ = writing.cancelled() or writing.exception()
        with suppress(asyncio.QueueEmpty):
            self._queue.get_nowait()

    async def _put(self, item: bytes | None) -> None:
        if not self._closed:
            await self._queue.put(item)
        if self._closed and self._writing is not None:
            self._writing.result()


def _checked(key: str) -> str:
    if not KEY.fullmatch(key) or ".." in key or len(key) > 512:
        raise ValueError(f"not a key of the store: {key!r:.80}")
    return key


@contextmanager
def _translated(operation: str, key: str, *, bucket: bool = False) -> Iterator[None]:
    """Turn the errors of the store into ours; the details are for the log. With `bucket`, a missing object is not a
    file but the bucket itself, or an upload that it no longer knows."""
    try:
        yield
    except (BaseError, OSError) as error:
        if isinstance(error, FileNotFoundError) and not bucket:
            raise MissingFile(key) from error
        STORE_ERRORS.labels(operation).inc()
        log.error("storage failed", key=key, error=type(error).__name__, reason=reason_of(error).partition(": <")[0])
        raise StorageUnavailable("the gateway's file store cannot be used at present; try again later") from error


async def _coalesced(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in pieces of at least `HAND_OVER_BYTES`, except the last."""
    waiting = bytearray()
    async for chunk in chunks:
        if not waiting and len(chunk) >= HAND_OVER_BYTES:
            yield chunk
            continue
        waiting += chunk
        if len(waiting) >= HAND_OVER_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _delete_files(root: Path, folder: str, but: tuple[str, ...]) -> None:
    if not any(key.startswith(f"{folder}/") for key in but):
        rmtree(root / folder)
        return
    for path in (root / folder).iterdir():
        if not f"{folder}/{path.name}".startswith(but):
            path.unlink(missing_ok=True)


@asynccontextmanager
async def open_upload(store: Store, upload: Media) -> AsyncIterator[Upload]:
    """Open a stored upload for an upstream. Raises `MissingFile`, `StorageUnavailable`."""
    if upload.key is None:
        raise MissingFile("no upload")
    size = await store.stat(upload.key)
    if size is None:
        raise MissingFile(upload.key)
    content_type = upload.content_type or "application/octet-stream"
    suffix = content_type.rpartition("/")[2]
    yield Upload(
        filename=upload.filename or f"upload.{suffix}",
        content_type=content_type,
        size=size,
        chunks=store.open(upload.key),
    )
