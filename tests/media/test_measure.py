"""The child that measures files: hostile files, its limits, and files of a bucket."""

import asyncio
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from obstore.store import MemoryStore
from samples import Samples, box, measured, patched

from app.media.measure import AT_ONCE, CHILD, MAX_READ_BYTES, Measured, measure
from app.media.measure_child import BLOCK_BYTES, Cut, ParentFile, block_times, read_gif, read_webp
from app.media.store import MissingFile, Store, StoredFile

pytestmark = pytest.mark.anyio

FTYP = box(b"ftyp", b"isom" + bytes(4) + b"isommp42")
EBML = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"
CUT = Measured(truncated=True)


class CountingStore(Store):
    """A bucket that counts what is read of it; bytes that were never written are zeros."""

    def __init__(self, *pieces: bytes | int) -> None:
        super().__init__(MemoryStore())
        self.pieces = [(0, piece) for piece in pieces]
        self.reads = self.bytes_read = 0
        offset = 0
        for number, piece in enumerate(pieces):
            self.pieces[number] = (offset, piece)
            offset += piece if isinstance(piece, int) else len(piece)
        self.size = offset

    async def read(self, key: str, start: int, length: int) -> bytes:
        self.reads += 1
        self.bytes_read += length
        content = bytearray(length)
        for offset, piece in self.pieces:
            low, high = max(offset, start), min(offset + len(piece), start + length) if isinstance(piece, bytes) else 0
            if isinstance(piece, bytes) and low < high:
                content[low - start : high - start] = piece[low - offset : high - offset]
        return bytes(content)

    async def measured(self) -> Measured:
        head = await self.read("file", 0, 512)
        return await measure(self, StoredFile("file", self.size, "", head))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 2**63), CUT),
        (FTYP + struct.pack(">I4sQ", 1, b"moov", 2**64 - 1), CUT),
        (FTYP + struct.pack(">I4s", 2**32 - 1, b"moov"), CUT),
        (FTYP + struct.pack(">I4s", 4, b"mdat"), CUT),
        (FTYP, CUT),
        (FTYP + box(b"moov", b""), Measured(truncated=False)),
        (FTYP + box(b"moov", b"") + struct.pack(">I4s", 2**32 - 1, b"junk"), Measured(truncated=False)),
        (FTYP + box(b"moov", b"") + struct.pack(">I4s", 2**32 - 1, b"mdat"), CUT),
        (EBML, CUT),
        (EBML + b"\x18\x53\x80\x67\x08" + b"\xff" * 7, CUT),
        (EBML + b"\x18\x53\x80\x67\x01" + b"\xff" * 7, Measured(truncated=False)),
        (b"RIFF\xff\xff\xff\xffWEBP" + bytes(100), CUT),
        (b"RIFF\x04\0\0\0WEBP" + bytes(100), Measured(codec="webp", truncated=False)),
        (b"GIF89a", CUT),
        (b"GIF89a" + bytes(7) + b";", Measured(codec="gif", truncated=False)),
        (b"no video at all", Measured()),
        (bytes(range(256)) * 40, Measured()),
    ],
)
async def test_a_broken_file_has_no_measures(content: bytes, expected: Measured) -> None:
    assert await measured(content) == expected


@pytest.mark.parametrize("name", ["fast.mp4", "web.webm", "ts.ts", "anim.gif", "anim.webp"])
async def test_random_bytes_after_a_valid_head_never_raise(samples: Samples, name: str) -> None:
    content, random = samples(name), Random(name)
    for kept in (64, 700, 3_000):
        found = await measured(content[:kept] + random.randbytes(50_000))
        assert found.duration_s is None or found.duration_s > 0
    spoiled = bytearray(content)
    for _ in range(50):
        spoiled[random.randrange(8, len(spoiled))] = random.randrange(256)
    assert isinstance(await measured(bytes(spoiled)), Measured)


@pytest.mark.parametrize(
    "changes",
    [
        [(b"tkhd", 0, ">I", 0)],  # switched off
        [(b"mdhd", 12, ">I", 0)],  # no units per second
        [(b"stts", 12, ">I", 2**31)],  # frames of weeks
        [(b"elst", 8, ">I", 2**32 - 2)],
        [(b"elst", 8, ">I", 0)],
    ],
)
async def test_a_track_with_one_absurd_number_is_measured(
    samples: Samples, changes: list[tuple[bytes, int, str, int]]
) -> None:
    assert await measured(patched(samples("fast.mp4"), *changes)) == Measured(4, 640, 360, "h264", truncated=False)


def test_structures_that_are_read_here_end(samples: Samples) -> None:
    """Readers of whole structures stop at the end of any changed file, or find that it is cut off."""
    readers: dict[str, Callable[[ParentFile], object]] = {
        "anim.gif": read_gif,
        "anim.webp": read_webp,
        "web.webm": block_times,
        "live.webm": block_times,
    }
    for name, read in readers.items():
        content, random = samples(name), Random(name)
        for _ in range(200):
            spoiled = bytearray(content[: random.randrange(20, len(content))])
            for _ in range(random.randrange(10)):
                spoiled[random.randrange(12, len(spoiled))] = random.randrange(256)
            with suppress(Cut, struct.error):
                read(InMemory(bytes(spoiled)))


class InMemory(ParentFile):
    """A file without a parent."""

    def __init__(self, content: bytes) -> None:
        super().__init__(len(content))
        self._content = content

    def _ask(self, number: int) -> bytes:
        return self._content[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]


@pytest.mark.parametrize(
    "lie",
    [
        {"duration_s": float("nan"), "width": 0, "height": 360},
        {"duration_s": float("inf"), "width": 640, "height": 32_769},
        {"duration_s": -1, "width": -640, "height": -360},
        {"duration_s": 10_000_001, "width": 640.5, "height": None},
        {"duration_s": "4", "width": "640", "height": "360", "codec": "H264\n"},
        {"duration_s": True, "width": True, "height": True, "codec": 7, "truncated": "yes"},
        {"duration_s": 1e-9, "codec": "x" * 21, "truncated": 1},
        {"duration_s": 10**400, "width": [640], "height": {}},
        {},
    ],
)
def test_an_answer_that_no_video_gives_is_left_out(lie: dict[str, object]) -> None:
    assert Measured.from_answer(lie) == Measured()


# Files of a bucket


async def test_the_index_behind_a_gigabyte_is_found_without_reading_it(samples: Samples) -> None:
    content = samples("base.mp4")
    moov = content[content.index(b"moov") - 4 :]
    bucket = CountingStore(FTYP, struct.pack(">I4sQ", 1, b"mdat", 16 + 2**30), 2**30, moov)
    assert await bucket.measured() == Measured(4, 640, 360, "h264", truncated=False)
    assert bucket.bytes_read < 16 * 2**20


async def test_a_child_reads_no_more_than_it_may() -> None:
    """A file of which every part has to be looked at, larger than the limit."""
    group = box(b"free", bytes(BLOCK_BYTES - 8))
    groups: list[bytes | int] = [group[:8], BLOCK_BYTES - 8]
    bucket = CountingStore(FTYP, *groups * (MAX_READ_BYTES // BLOCK_BYTES + 9))
    assert await bucket.measured() == Measured()
    assert bucket.bytes_read <= MAX_READ_BYTES + 512


async def test_a_file_that_vanishes_is_not_a_file_that_cannot_be_measured() -> None:
    with pytest.raises(MissingFile):
        await measure(Store(MemoryStore()), StoredFile("file", 1_000, "", FTYP))


# The child


async def child(*arguments: str, code: str | None = None) -> asyncio.subprocess.Process:
    command = ("-c", code) if code else (str(CHILD), *arguments)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={},
    )


@pytest.fixture
async def waiting() -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that has asked for the first bytes of a file and waits for them."""
    process = await child("5000000", "video/mp4")
    assert process.stdout is not None
    assert await process.stdout.readline() == f"0 {BLOCK_BYTES}\n".encode()
    yield process
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' /proc")
async def test_a_child_that_reads_is_limited(waiting: asyncio.subprocess.Process) -> None:
    lines = await asyncio.to_thread(Path(f"/proc/{waiting.pid}/limits").read_text)
    found = {match[1]: match[2] for match in re.finditer(r"^Max (.+?)  +\S+ +(\S+)", lines, re.MULTILINE)}
    names = ("cpu time", "data size", "file size", "core file size", "open files")
    assert [found[name] for name in names] == ["20", str(512 * 2**20), "0", "0", "0"]


async def test_a_child_whose_parent_has_died_ends(waiting: asyncio.subprocess.Process) -> None:
    assert waiting.stdin is not None
    waiting.stdin.close()
    assert waiting.stdout is not None
    assert await waiting.stdout.read() == b'{"error": "EOFError"}\n'
    assert await waiting.wait() == 0


def kill_children() -> None:
    """Kill the children of this process that measure."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if str(CHILD).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux' /proc")
async def test_a_child_that_is_killed_measures_nothing(samples: Samples) -> None:
    class Deadly(CountingStore):
        async def read(self, key: str, start: int, length: int) -> bytes:
            kill_children()
            return await super().read(key, start, length)

    assert await Deadly(samples("longaudio.mp4")).measured() == Measured()


async def test_no_more_than_two_children_run_at_once(samples: Samples) -> None:
    running = most = 0

    class Slow(CountingStore):
        async def read(self, key: str, start: int, length: int) -> bytes:
            nonlocal running, most
            running += start == 0 and length > 512
            most = max(most, running)
            await asyncio.sleep(0)
            return await super().read(key, start, length)

    store = Slow(samples("one.mp4"))
    file = StoredFile("file", store.size, "", samples("one.mp4")[:512])

    async def one() -> None:
        nonlocal running
        assert (await measure(store, file)).duration_s
        running -= 1

    await asyncio.gather(*(one() for _ in range(5)))
    assert most <= AT_ONCE


async def test_a_limited_child_opens_no_file_and_no_socket() -> None:
    code = f"""if True:
        import runpy, socket
        runpy.run_path({str(CHILD)!r})["set_limits"]()
        for attempt in (lambda: open("/dev/null"), socket.socket):
            try: attempt()
            except OSError as error: print(error.errno)
    """
    process = await child(code=code)
    said, _ = await process.communicate()
    assert said.split() == [b"24", b"24"]
