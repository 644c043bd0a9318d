"""The header reader: real videos by ffmpeg, invented headers, and hostile bytes."""

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media import ffmpeg, mp4, testcard
from app.media.mp4 import VideoHeader


class Blob:
    """A file of which most bytes are zero and only some exist; counts what is read of it."""

    def __init__(self, *pieces: bytes | int) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.size = 0
        self.reads = self.bytes_read = 0
        for piece in pieces:
            if isinstance(piece, bytes):
                self.parts.append((self.size, piece))
            self.size += piece if isinstance(piece, int) else len(piece)

    async def fetch(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length > 0
        length = min(length, self.size - offset)
        self.reads += 1
        self.bytes_read += length
        read = bytearray(length)
        for start, piece in self.parts:
            low, high = max(start, offset), min(start + len(piece), offset + length)
            if low < high:
                read[low - offset : high - offset] = piece[low - start : high - start]
        return bytes(read)

    async def read(self) -> VideoHeader | None:
        return await mp4.read_header(self.fetch, self.size)


def box(kind: bytes, *body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, body)), kind) + b"".join(body)


def mvhd(scale: int = 1000, length: int = 4000, *, version: int = 0) -> bytes:
    numbers = struct.pack(">16xIQ", scale, length) if version else struct.pack(">8xII", scale, length)
    return box(b"mvhd", bytes([version, 0, 0, 0]), numbers, bytes(80))


def trak(handler: bytes = b"vide", codec: bytes = b"avc1", width: int = 640, height: int = 360) -> bytes:
    entry = box(codec, bytes(24), struct.pack(">HH", width, height), bytes(50))
    stsd = box(b"stsd", bytes(4), struct.pack(">I", 1), entry)
    hdlr = box(b"hdlr", bytes(8), handler, bytes(13))
    tkhd = box(b"tkhd", bytes(76), struct.pack(">II", 1920 << 16, 1080 << 16))
    return box(b"trak", tkhd, box(b"mdia", hdlr, box(b"minf", box(b"stbl", stsd))))


FTYP = box(b"ftyp", b"isom", bytes(4), b"isommp42")
MOOV = box(b"moov", mvhd(), trak(b"soun", b"mp4a", 0, 0), trak())
WIDE = struct.pack(">I4sQ", 1, b"mdat", 16 + 2**30)
"""The beginning of a box of 1 GiB with a 64-bit size."""


@pytest.fixture(scope="module")
async def video_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "card.mp4"
    await testcard.render_card(path, seconds=1.5, width=160, height=90, prompt="a card", title="test", timeout_s=20)
    return path


def load(path: Path) -> Blob:
    return Blob(path.read_bytes())


async def converted(video_file: Path, name: str, *args: str) -> Blob:
    target = video_file.parent / name
    await ffmpeg.run(("-i", str(video_file), *args, str(target)), timeout_s=20)
    return load(target)


async def test_the_header_of_a_real_video_is_read(video_file: Path) -> None:
    blob = load(video_file)
    assert await blob.read() == VideoHeader(1.5, 160, 90, "h264")
    assert blob.reads <= 3


async def test_other_containers_of_the_same_video_are_read(video_file: Path) -> None:
    fragmented = ("-c", "copy", "-movflags", "frag_keyframe+empty_moov")
    assert await (await converted(video_file, "a.mov", "-c", "copy")).read() == VideoHeader(1.5, 160, 90, "h264")
    assert await (await converted(video_file, "b.mp4", *fragmented)).read() == VideoHeader(None, 160, 90, "h264")
    webm = await converted(video_file, "c.webm", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
    assert await webm.read() is None


async def test_the_header_behind_a_gigabyte_is_found_without_reading_it() -> None:
    blob = Blob(FTYP, WIDE, 2**30, MOOV)
    assert await blob.read() == VideoHeader(4, 640, 360, "h264")
    assert (blob.reads, blob.bytes_read) == (4, 3 * 16 + len(MOOV) - 8)


@pytest.mark.parametrize(
    ("moov", "expected"),
    [
        (box(b"moov", mvhd(90_000, 2**40, version=1), trak()), VideoHeader(None, 640, 360, "h264")),
        (box(b"moov", mvhd(600, 3000, version=1), trak(codec=b"hvc1")), VideoHeader(5, 640, 360, "hevc")),
        (box(b"moov", trak(codec=b"abcd"), mvhd()), VideoHeader(4, 640, 360, "abcd")),
        (box(b"moov", mvhd(), trak(codec=b"\x00\xff\x01\x02")), VideoHeader(4, 640, 360, None)),
        (box(b"moov", mvhd(), trak(width=0)), VideoHeader(4, 1920, 1080, "h264")),
        (box(b"moov", mvhd(), trak(), trak(width=1, height=1)), VideoHeader(4, 640, 360, "h264")),
        (box(b"moov", mvhd(), trak(b"soun", b"mp4a")), VideoHeader(4, None, None, None)),
        (box(b"moov", mvhd(scale=0), trak()), VideoHeader(None, 640, 360, "h264")),
        (box(b"moov", mvhd(length=2**32 - 1), trak()), VideoHeader(None, 640, 360, "h264")),
        (box(b"moov", mvhd(length=0), trak(), box(b"mvex")), VideoHeader(None, 640, 360, "h264")),
        (
            box(b"moov", mvhd(length=0), trak(), box(b"mvex", box(b"mehd", struct.pack(">II", 0, 2500)))),
            VideoHeader(2.5, 640, 360, "h264"),
        ),
        (
            box(b"moov", mvhd(length=0), trak(), box(b"mvex", box(b"mehd", struct.pack(">BxxxQ", 1, 7000)))),
            VideoHeader(7, 640, 360, "h264"),
        ),
        (box(b"moov", mvhd()[:20]), VideoHeader(None, None, None, None)),
        (struct.pack(">I4s", 0, b"moov") + mvhd() + trak(), VideoHeader(4, 640, 360, "h264")),
    ],
)
async def test_a_header_is_read_in_every_valid_form(moov: bytes, expected: VideoHeader) -> None:
    assert await Blob(FTYP, moov).read() == expected


@pytest.mark.parametrize(
    "blob",
    [
        Blob(b""),
        Blob(b"moov"),
        Blob(FTYP),
        Blob(FTYP, struct.pack(">I4s", 2**32 - 1, b"mdat"), MOOV),
        Blob(FTYP, struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1), MOOV),
        Blob(FTYP, struct.pack(">I4sQ", 1, b"mdat", 4), MOOV),
        Blob(FTYP, struct.pack(">I4s", 1, b"mdat")),
        Blob(FTYP, struct.pack(">I4s", 7, b"free"), MOOV),
        Blob(FTYP, struct.pack(">I4s", 0, b"mdat"), MOOV),
        Blob(FTYP, MOOV[:-1]),
        Blob(FTYP, box(b"moov")),
        Blob(FTYP, *[box(b"free")] * 10_000, MOOV),
        Blob(FTYP, struct.pack(">I4s", 65 * 2**20, b"moov"), 65 * 2**20),
    ],
)
async def test_a_file_that_is_no_video_has_no_header(blob: Blob) -> None:
    assert await blob.read() is None
    assert blob.reads <= mp4.MAX_TOP_BOXES
    assert blob.bytes_read < 10_000


async def test_a_header_of_very_many_boxes_ends() -> None:
    blob = Blob(box(b"moov", box(b"free") * 2_000_000, trak()))
    assert await blob.read() == VideoHeader(None, None, None, None)


async def test_a_store_that_answers_short_gives_no_header() -> None:
    async def short(offset: int, length: int) -> bytes:
        return MOOV[offset : offset + length // 2]

    assert await mp4.read_header(short, len(MOOV)) is None


@settings(max_examples=300, deadline=2000)
@given(data=st.data())
def test_mutated_headers_never_raise(data: st.DataObject) -> None:
    raw = bytearray(FTYP + box(b"moov", mvhd(), trak(), box(b"mvex", box(b"mehd", bytes(8)))))
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
        raw = raw or bytearray(1)
    asyncio.run(Blob(bytes(raw)).read())


@settings(max_examples=200, deadline=2000)
@given(head=st.binary(max_size=200), prefix=st.sampled_from([b"", FTYP, MOOV[:8], MOOV[:60], FTYP + MOOV[:-30]]))
def test_random_bytes_never_raise(head: bytes, prefix: bytes) -> None:
    asyncio.run(Blob(prefix + head).read())
    mp4.sniff(head)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (FTYP, "video/mp4"),
        (box(b"ftyp", b"qt  ", bytes(8)), "video/quicktime"),
        (box(b"ftyp", b"avif", bytes(8)), None),
        (box(b"ftyp", b"heic", bytes(8)), None),
        (box(b"ftyp", b"M4A ", bytes(8)), None),
        (box(b"wide") + box(b"mdat"), "video/quicktime"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska", None),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"<svg onload='x'>", None),
        (b"#EXTM3U\n", None),
        (b"", None),
    ],
)
def test_the_first_bytes_give_the_content_type(head: bytes, expected: str | None) -> None:
    assert mp4.sniff(head) == expected


@pytest.mark.parametrize("head", [b"#EXTM3U\n", b"\xef\xbb\xbf<svg/>", b"{}", b"\tfilm\r\n", "Fehler: für".encode()])
def test_text_is_recognised(head: bytes) -> None:
    assert mp4.is_text(head)


@pytest.mark.parametrize("head", [b"", b"\0\0\0\x18ftypmp42", b"RIFF\x10\0\0\0AVI LIST", b"G@\0\x10", bytes(512)])
def test_other_bytes_are_not_taken_for_text(head: bytes) -> None:
    assert not mp4.is_text(head)
