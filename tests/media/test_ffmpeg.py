"""Real runs of ffmpeg: the contents of a test card, pictures of videos, and processes that do not end by themselves."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from media.clips import StandIn
from samples import measured

from app.media import ffmpeg, frames, testcard
from app.media.ffmpeg import FfmpegFailed, FfmpegMissing
from app.media.frames import NoPicture
from app.media.measure import Measured
from app.media.sniff import sniff

ProcessIds = Callable[[], set[int]]

HOSTILE = [
    "%{pts}",
    "it's 'quoted' \"twice\"",
    "a:b,c;d[e]f=g",
    "back\\slash \\\\ \\n \\: end\\",
    "two\nlines\r\nand\ttabs\x00\x1b[31m\u202e\u2028",
    "%{expr:1/0} %d %% $HOME `id` {x}",
    "😀 émoji 猫 مرحبا \ud83d",
    "",
    "   ",
    "word " * 6_400,
    "W" * 32_000,
]

FOREVER = ("-f", "lavfi", "-i", "testsrc2=s=64x64", "-f", "null", "-")


async def render(path: Path, **changes: object) -> Measured:
    wanted = {"seconds": 0.5, "width": 320, "height": 180, "prompt": "a cat", "title": "sandbox/testcard"} | changes
    await testcard.render_card(path, **wanted, timeout_s=30)  # type: ignore[arg-type]  # the changes are the test's
    return await probe(path)


async def probe(path: Path) -> Measured:
    return await measured(await asyncio.to_thread(path.read_bytes))


async def picture(video_file: Path, start_s: float, crop: str = "iw:ih:0:0") -> bytes:
    """One frame as grey bytes; `crop` is w:h:x:y."""
    target = video_file.with_suffix(".raw")
    source = (*(("-ss", f"{start_s}") if start_s else ()), "-i", str(video_file))
    shown = ("-frames:v", "1", "-vf", f"crop={crop},format=gray", "-f", "rawvideo")
    await ffmpeg.run((*source, *shown, str(target)), timeout_s=20)
    return await asyncio.to_thread(target.read_bytes)


async def encode(path: Path, graph: str, *options: str) -> None:
    """Encode one second of video, quickly."""
    hurried = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "2")
    args = ("-f", "lavfi", "-i", graph, "-t", "1", *hurried, *options, str(path))
    await ffmpeg.run(args, timeout_s=60, max_memory_bytes=testcard.MAX_CARD_MEMORY_BYTES)


def running() -> set[int]:
    """The children of this process that have not ended, zombies included."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture
def process_ids() -> ProcessIds:
    """The children started since the test began."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs Linux' /proc")
    before = running()
    return lambda: running() - before


async def started(process_ids: ProcessIds, count: int, turns: int = 100_000) -> None:
    """Let the loop turn until so many children run."""
    for _ in range(turns):
        if len(process_ids()) >= count:
            break
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1280, 720, (1280, 720)),
        (360, 640, (360, 640)),
        (321, 181, (320, 180)),
        (16, 16, (16, 16)),
        (16, 900, (16, 900)),
    ],
)
async def test_a_card_has_the_size_and_length_asked_for(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    assert await render(tmp_path / "card.mp4", width=width, height=height, seconds=1.25) == Measured(
        1.25, *expected, "h264", truncated=False
    )


async def test_a_card_can_be_played_from_its_first_bytes(tmp_path: Path) -> None:
    await render(tmp_path / "card.mp4")
    raw = await asyncio.to_thread((tmp_path / "card.mp4").read_bytes)
    assert raw.index(b"moov") < raw.index(b"mdat")
    assert sniff(raw[:64]) == "video/mp4"


async def test_the_clock_of_a_card_runs(tmp_path: Path) -> None:
    card = tmp_path / "card.mp4"
    await render(card, seconds=2)
    clock = "iw*0.4:ih*0.14:0:ih*0.82"
    first, second = await picture(card, 0.5, clock), await picture(card, 1.5, clock)
    changed = sum(abs(a - b) > 100 for a, b in zip(first, second, strict=True))
    assert changed > 20


async def test_the_prompt_is_drawn_on_the_card(tmp_path: Path) -> None:
    middle = "iw*0.8:ih*0.4:0:ih*0.2"
    await render(tmp_path / "empty.mp4", prompt="")
    await render(tmp_path / "cat.mp4", prompt="A CAT IN THE RAIN")
    bright = [sum(v > 200 for v in await picture(tmp_path / f"{name}.mp4", 0, middle)) for name in ("empty", "cat")]
    assert bright[0] == 0
    assert bright[1] > 300


async def test_the_same_card_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        await render(tmp_path / name)
    assert await asyncio.to_thread((tmp_path / "a.mp4").read_bytes) == await asyncio.to_thread(
        (tmp_path / "b.mp4").read_bytes
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_on_a_card_is_executed(tmp_path: Path, text: str) -> None:
    card = tmp_path / "card.mp4"
    assert await render(card, prompt=text, title=text, notes=text, seconds=0.25) == Measured(
        0.25, 320, 180, "h264", truncated=False
    )


async def test_an_expansion_in_the_prompt_is_drawn_as_it_is(tmp_path: Path) -> None:
    card = tmp_path / "card.mp4"
    await render(card, prompt="%{pts:hms} %{n}", seconds=2)
    # The ground moves too, but never to where letters are bright.
    bright = [[v > 220 for v in await picture(card, start, "iw*0.8:ih*0.4:0:ih*0.2")] for start in (0.2, 1.7)]
    changed = sum(a != b for a, b in zip(*bright, strict=True))
    assert sum(bright[0]) > 100
    assert changed < sum(bright[0]) / 4


async def test_pictures_of_a_video_have_the_right_size(tmp_path: Path) -> None:
    video_file, thumbnail, sheet = (tmp_path / name for name in ("card.mp4", "t.webp", "s.jpg"))
    await render(video_file, width=1280, height=720, seconds=1)
    await frames.thumbnail(video_file, thumbnail, duration_s=1, timeout_s=20)
    await frames.spritesheet(video_file, sheet, duration_s=1, timeout_s=20)
    for path, kind, size in ((thumbnail, "image/webp", 640 * 360), (sheet, "image/jpeg", 800 * 450)):
        assert sniff(await asyncio.to_thread(path.read_bytes)) == kind
        shown = await picture(path, 0)
        assert len(shown) == size
    bottom_right = await picture(sheet, 0, "160:90:640:360")
    assert max(bottom_right) > 150


@pytest.mark.parametrize("duration_s", [None, 1, 1_000_000])
async def test_pictures_of_a_video_with_a_wrong_length_are_made(tmp_path: Path, duration_s: float | None) -> None:
    video_file, thumbnail, sheet = (tmp_path / name for name in ("card.mp4", "t.webp", "s.jpg"))
    await render(video_file, seconds=0.3)
    await frames.thumbnail(video_file, thumbnail, duration_s=duration_s, timeout_s=20)
    await frames.spritesheet(video_file, sheet, duration_s=duration_s, timeout_s=20)
    assert len(await picture(thumbnail, 0)) == 320 * 180
    assert len(await picture(sheet, 0)) == 800 * 450


async def test_pictures_of_a_large_video_fit_into_the_memory_limit(tmp_path: Path) -> None:
    video_file, thumbnail, sheet = (tmp_path / name for name in ("clip.mp4", "t.webp", "s.jpg"))
    await encode(video_file, "color=s=3840x2160:r=8", "-pix_fmt", "yuv444p10")
    await frames.thumbnail(video_file, thumbnail, duration_s=1, timeout_s=60)
    await frames.spritesheet(video_file, sheet, duration_s=1, timeout_s=60)
    assert len(await picture(thumbnail, 0)) == 640 * 360
    assert len(await picture(sheet, 0)) == 800 * 450


# Files that are no video, or not what they seem

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
NO_VIDEOS = {
    "empty": b"",
    "text": b"no video at all",
    "page": b"<!doctype html><html><body>502</body></html>",
    "HLS": PLAYLIST,
    "HLS under a mark": b"\xef\xbb\xbf" + PLAYLIST,
    "DASH": b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>',
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "AVI": b"RIFF\x10\0\0\0AVI LIST",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "EBML": b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88document" + bytes(64),
}


async def refused(video_file: Path, kind: type[FfmpegFailed] = NoPicture, timeout_s: float = 20) -> None:
    """No picture of any sort can be made, and the reason is a short one."""
    for number, make in enumerate((frames.thumbnail, frames.spritesheet)):
        with pytest.raises(FfmpegFailed) as caught:
            await make(video_file, video_file.with_suffix(f".{number}"), duration_s=1, timeout_s=timeout_s)
        assert type(caught.value) is kind
        assert len(caught.value.message) < 200
        assert caught.value.headers == {"x-should-retry": "false"}
        for inner in (str(video_file.parent), "passwd", "0x"):
            assert inner not in caught.value.message


@pytest.mark.parametrize("content", NO_VIDEOS.values(), ids=[name.replace(" ", "_") for name in NO_VIDEOS])
async def test_a_file_that_is_no_video_never_reaches_ffmpeg(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> NoReturn:
        raise AssertionError("ffmpeg was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    video_file = tmp_path / "clip.mp4"
    await asyncio.to_thread(video_file.write_bytes, content)
    await refused(video_file)


@pytest.mark.parametrize("kind", ["ftypmp42", "ftypqt  ", "moov", "mdat"])
async def test_a_playlist_disguised_as_a_video_is_refused(tmp_path: Path, kind: str, process_ids: ProcessIds) -> None:
    video_file = tmp_path / "clip.mp4"
    await asyncio.to_thread(video_file.write_bytes, b"\0\0\0\x10" + kind.encode().ljust(12, b"\0") + PLAYLIST)
    await refused(video_file)
    assert process_ids() == set()


@pytest.fixture
async def video_file(tmp_path: Path) -> Path:
    """A video with its header last, as files are that were not made for streaming."""
    path = tmp_path / "clip.mp4"
    await encode(path, "testsrc2=s=320x180:r=24", "-pix_fmt", "yuv420p")
    return path


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
async def test_a_video_that_breaks_off_before_its_header_is_refused(video_file: Path, kept: float) -> None:
    raw = await asyncio.to_thread(video_file.read_bytes)
    await asyncio.to_thread(video_file.write_bytes, raw[: int(len(raw) * kept)])
    await refused(video_file)


async def test_a_video_whose_frames_are_noise_is_refused(video_file: Path) -> None:
    raw = await asyncio.to_thread(video_file.read_bytes)
    start, end = raw.index(b"mdat") + 4, raw.index(b"moov") - 4
    await asyncio.to_thread(video_file.write_bytes, raw[:start] + b"\xff" * (end - start) + raw[end:])
    await refused(video_file)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xfe", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
async def test_a_video_of_an_absurd_length_gets_its_pictures(video_file: Path, length: bytes) -> None:
    raw = await asyncio.to_thread(video_file.read_bytes)
    at = raw.index(b"mvhd") + 4 + 16
    await asyncio.to_thread(video_file.write_bytes, raw[:at] + length + raw[at + 4 :])
    header = await probe(video_file)
    assert header.duration_s == 1
    for name, make in (("t", frames.thumbnail), ("s", frames.spritesheet)):
        await make(video_file, video_file.with_suffix(f".{name}"), duration_s=header.duration_s, timeout_s=20)


async def test_a_video_that_declares_enormous_frames_is_refused(tmp_path: Path, process_ids: ProcessIds) -> None:
    video_file = tmp_path / "clip.webm"
    await encode(video_file, "testsrc2=s=64x64:r=8", "-c:v", "libvpx")
    raw = await asyncio.to_thread(video_file.read_bytes)
    enormous = raw.replace(b"\x9d\x01\x2a\x40\0\x40\0", b"\x9d\x01\x2a\xff\x3f\xff\x3f")
    assert enormous != raw
    await asyncio.to_thread(video_file.write_bytes, enormous)
    await refused(video_file)
    assert process_ids() == set()


async def test_a_video_that_takes_too_long_to_decode_is_refused(tmp_path: Path, process_ids: ProcessIds) -> None:
    second, bomb = tmp_path / "second.mp4", tmp_path / "bomb.mp4"
    await encode(second, "color=s=4096x4096:r=8")
    await ffmpeg.run(("-stream_loop", "200", "-i", str(second), "-c", "copy", str(bomb)), timeout_s=60)
    assert bomb.stat().st_size < 16 * 2**20
    with pytest.raises(NoPicture, match="takes too long") as caught:
        await frames.spritesheet(bomb, tmp_path / "sheet.jpg", duration_s=200, timeout_s=0.5)
    assert not caught.value.final
    assert process_ids() == set()


# Limits


async def test_a_run_is_limited_from_its_first_moment(process_ids: ProcessIds) -> None:
    expected = {
        "data size": str(ffmpeg.MAX_PICTURE_MEMORY_BYTES),
        "file size": str(ffmpeg.MAX_PICTURE_BYTES),
        "core file size": "0",
        "cpu time": "82",  # which ffmpeg sets itself
    }
    task = asyncio.create_task(ffmpeg.run(FOREVER, timeout_s=20))
    await started(process_ids, 1)
    (pid,) = process_ids()
    limits: dict[str, str] = {}
    while limits != expected and not task.done():
        lines = await asyncio.to_thread(Path(f"/proc/{pid}/limits").read_text)
        found = {match[1]: match[2] for match in re.finditer(r"^Max (.+?)  +\S+ +(\S+)", lines, re.MULTILINE)}
        limits = {name: found[name] for name in expected}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limits == expected


async def test_a_run_that_wants_more_memory_than_it_may_have(tmp_path: Path, process_ids: ProcessIds) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=4096x4096", "-t", "10", "-f", "null", "-")
    with pytest.raises(FfmpegFailed) as caught:
        await ffmpeg.run(source, timeout_s=30, max_memory_bytes=48 * 2**20)
    assert type(caught.value) is FfmpegFailed
    assert process_ids() == set()


async def test_a_run_that_writes_more_than_it_may(tmp_path: Path) -> None:
    target = tmp_path / "clip.raw"
    with pytest.raises(FfmpegFailed, match=r"ffmpeg failed \(-25\)"):
        await ffmpeg.run((*FOREVER[:4], "-f", "rawvideo", str(target)), timeout_s=30, max_bytes=100_000)
    assert target.stat().st_size <= 100_000


async def test_a_run_that_complains_without_end_is_killed() -> None:
    with pytest.raises(FfmpegFailed, match=r"ffmpeg failed \(-9\): "):
        await ffmpeg.run(("-loglevel", "info", *FOREVER[:4], "-vf", "showinfo", *FOREVER[4:]), timeout_s=60)


async def test_a_run_that_takes_too_long_is_killed(process_ids: ProcessIds) -> None:
    with pytest.raises(FfmpegFailed, match=r"ffmpeg was stopped after 0\.2 s"):
        await ffmpeg.run(FOREVER, timeout_s=0.2)
    assert process_ids() == set()


async def test_a_cancelled_run_is_killed(process_ids: ProcessIds) -> None:
    task = asyncio.create_task(ffmpeg.run(FOREVER, timeout_s=60))
    await started(process_ids, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process_ids() == set()


async def test_ffmpeg_gets_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch, process_ids: ProcessIds) -> None:
    monkeypatch.setenv("GATEWAY_PEPPER", "sekret")
    await asyncio.to_thread(ffmpeg.program)  # which may run some to find one
    task = asyncio.create_task(ffmpeg.run(FOREVER, timeout_s=60))
    await started(process_ids, 1)
    (process,) = process_ids()
    environment = await asyncio.to_thread(Path(f"/proc/{process}/environ").read_bytes)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert {line.partition(b"=")[0] for line in environment.split(b"\0") if line} <= {b"PATH", b"LD_LIBRARY_PATH"}


# The program


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ("ffmpeg version 5.1.6-0+deb12u1 Copyright (c) 2000-2024", (5, 1, 6)),
        ("ffmpeg version n7.1 Copyright", (7, 1)),
        ("ffmpeg version n9.0.2-17-g2a571b6068-20260930 Copyright", (9, 0, 2)),
        ("ffmpeg version 4.2.2-static https://johnvansickle.com/ffmpeg/", (4, 2, 2)),
        ("ffmpeg version 8 Copyright", (8,)),
        ("ffmpeg version N-118193-g5f38c82536\nlibavcodec     61. 33.102 / 61. 33.102\n", (7, 1000)),
        ("ffmpeg version 2024-10-10-git-0f5592cfc7-full_build\nlibavcodec     61. 19.100 / 61. 19.100\n", (7, 1000)),
        ("ffmpeg version N-118193-g5f38c82536", ()),
        ("ffmpeg version 2024-10-10-git-0f5592cfc7", ()),
        ("avconv version 11.4", ()),
        ("", ()),
    ],
)
def test_the_release_of_a_program_is_read_from_its_own_words(said: str, release: tuple[int, ...]) -> None:
    assert ffmpeg.release_of(said) == release


def test_the_newest_program_at_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = [StandIn(tmp_path / name, monkeypatch, name) for name in ("99.3", "N-1", "99.10", "99.9")]
    assert (ffmpeg.program().path, ffmpeg.program().version) == (str(on_path[2].path), "99.10")


def test_a_newer_program_that_lacks_something_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn(tmp_path / "bare", monkeypatch, "99.9").path.write_text("#!/bin/sh\necho ffmpeg version 99.9\n", "utf-8")
    assert ffmpeg.program().version != "99.9"


def test_without_ffmpeg_the_error_names_the_next_step() -> None:
    script = (
        "import sys; sys.modules['imageio_ffmpeg'] = None\n"
        "from app.media import ffmpeg\n"
        "try: ffmpeg.program()\n"
        "except ffmpeg.FfmpegMissing as error: print(error.message)"
    )
    said = subprocess.run([sys.executable, "-c", script], env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == (
        "there is no ffmpeg program here: install ffmpeg, or the extra `ffmpeg` of this package"
    )
    assert issubclass(FfmpegMissing, FfmpegFailed)
