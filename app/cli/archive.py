"""The file of a backup: a tar archive with the manifest, the secrets, the dump and their check sums, in this order.

It is read as a stream, header by header: only plain files with the expected names and sizes are taken, whatever else a
tar archive may hold.
"""

import tarfile
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import IO, Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from app.settings import ConfigurationError

MANIFEST, DUMP, SUMS = "manifest.json", "database.dump", "SHA256SUMS"
SECRETS = "secrets/"
MAX_SMALL_BYTES = 256 * 1024
"""Most bytes of the manifest, of a secret and of the check sums."""
MAX_SECRETS = 20
BLOCK_BYTES = 256 * 1024
_RECORD = tarfile.BLOCKSIZE
Word = Annotated[str, StringConstraints(pattern=r"^[\w.+-]{1,40}$")]
"""A version: it is printed, and a forged one must not control the terminal."""


class Manifest(BaseModel):
    """The description of a backup, with what its restore needs."""

    model_config = ConfigDict(hide_input_in_errors=True)

    format: Literal[1] = 1
    release: Word
    """The release that made it."""
    revision: Word
    """Revision of the gateway's schema."""
    at: AwareDatetime
    """The time of its state, by the database's clock."""
    server: Word
    """Version of the PostgreSQL that it was made from."""
    pg_dump: int
    """Main version of the program that made the dump, which `pg_restore` must have at least."""
    database_schema: str
    """Name of the schema in the database."""
    tables: list[str]
    counts: dict[str, int]
    """Rows of the main tables."""
    pepper: Literal["setting", "file"] | None
    """Origin of the pepper in it; None: it has none."""
    files: str
    """The place of the video files, which are not in it."""


class NotABackup(ConfigurationError):
    """A file that cannot be restored; the message has the reason."""


class Writer:
    """Writes the parts of a backup one after the other to a file that can be searched."""

    def __init__(self, file: IO[bytes], mtime: float) -> None:
        self._file = file
        self._mtime = mtime
        self._sums: list[str] = []

    def add(self, name: str, content: bytes) -> None:
        self._file.write(self._header(name, len(content)))
        self._file.write(content)
        self._end(name, len(content), sha256(content).hexdigest())

    async def add_stream(self, name: str, blocks: AsyncIterator[bytes]) -> AsyncIterator[int]:
        """Write a part whose size is not known before. Yields the number of bytes so far."""
        start, size, digest = self._file.tell(), 0, sha256()
        self._file.write(self._header(name, 0))
        async for block in blocks:
            self._file.write(block)
            digest.update(block)
            size += len(block)
            yield size
        self._file.seek(start)
        self._file.write(self._header(name, size))
        self._file.seek(size, 1)
        self._end(name, size, digest.hexdigest())

    def finish(self) -> None:
        self.add(SUMS, "".join(self._sums).encode())
        self._file.write(bytes(2 * _RECORD))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(self._mtime)
        return info.tobuf(tarfile.GNU_FORMAT)

    def _end(self, name: str, size: int, digest: str) -> None:
        self._file.write(bytes(-size % _RECORD))
        self._sums.append(f"{digest}  {name}\n")


class Reader:
    """Reads the parts of a backup one after the other. Raises `NotABackup` at the first that is not as expected."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._sums: list[str] = []
        self._next: tarfile.TarInfo | None = None
        self.manifest = self._read_manifest()
        self.secrets = self._read_secrets()
        self.dump_bytes = self._take(DUMP).size

    def error(self, reason: str) -> NotABackup:
        return NotABackup(f"{self._name} cannot be restored: {reason}")

    def blocks(self) -> Iterator[bytes]:
        """The dump. Raises at its end if the check sums of the parts are not those in the file."""
        digest, left = sha256(), self.dump_bytes
        while left:
            block = self._exactly(min(left, BLOCK_BYTES))
            digest.update(block)
            left -= len(block)
            yield block
        self._end(DUMP, self.dump_bytes, digest.hexdigest())
        expected = "".join(self._sums).encode()
        if self._small(SUMS) != expected:
            raise self.error("its check sums are wrong, so it was damaged; take another backup")

    def _read_manifest(self) -> Manifest:
        content = self._small(MANIFEST)
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            if any(wrong["loc"] == ("format",) for wrong in error.errors(include_input=False)):
                raise self.error("a newer release made it, in a format that this one cannot read") from None
            raise self.error("its manifest is not a backup's") from None

    def _read_secrets(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._header().name.startswith(SECRETS):
            name = self._header().name.removeprefix(SECRETS)
            if not name.replace("-", "").isalnum() or not name.isascii() or len(found) == MAX_SECRETS:
                raise self.error("it has a part that is not a backup's")
            content = self._small(SECRETS + name)
            try:
                found[name] = content.decode()
            except UnicodeDecodeError:
                raise self.error(f"its secret {name} is not text") from None
        return found

    def _small(self, name: str) -> bytes:
        size = self._take(name).size
        if size > MAX_SMALL_BYTES:
            raise self.error(f"its part {name} is too large")
        content = self._exactly(size)
        self._end(name, size, sha256(content).hexdigest())
        return content

    def _take(self, name: str) -> tarfile.TarInfo:
        """Take the next header, which has to be that of a plain file of this name."""
        header, self._next = self._header(), None
        if header.name != name or header.type != tarfile.REGTYPE or header.size < 0:
            raise self.error(f"it is not a backup of video-gateway, or was changed: {name} is not where it should be")
        return header

    def _header(self) -> tarfile.TarInfo:
        """Look at the next header without taking it."""
        if self._next is None:
            try:
                self._next = tarfile.TarInfo.frombuf(self._exactly(_RECORD), "utf-8", "replace")
            except tarfile.HeaderError:
                raise self.error("it is not a backup of video-gateway, or is damaged") from None
        return self._next

    def _exactly(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise self.error("it ends early, so it was not copied completely")
        return content

    def _end(self, name: str, size: int, digest: str) -> None:
        self._exactly(-size % _RECORD)
        self._sums.append(f"{digest}  {name}\n")
