"""Real runs of ffmpeg: what a card shows, pictures of films, and children that do not end by themselves."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import ffmpeg, mp4
from app.ffmpeg import FfmpegFailed, FfmpegMissing
from app.mp4 import Film

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


async def render(path: Path, **changes: object) -> Film | None:
    wanted = {"seconds": 0.5, "width": 320, "height": 180, "prompt": "a cat", "title": "sandbox/testcard"} | changes
    await ffmpeg.card(path, **wanted, timeout_s=30)  # type: ignore[arg-type]  # the changes are the test's
    return await probe(path)


async def probe(path: Path) -> Film | None:
    raw = await asyncio.to_thread(path.read_bytes)

    async def fetch(offset: int, length: int) -> bytes:
        return raw[offset : offset + length]

    return await mp4.read(fetch, len(raw))


async def picture(film: Path, start_s: float, crop: str = "iw:ih:0:0") -> bytes:
    """One frame as grey bytes; `crop` is w:h:x:y."""
    target = film.with_suffix(".raw")
    source = (*(("-ss", f"{start_s}") if start_s else ()), "-i", str(film))
    shown = ("-frames:v", "1", "-vf", f"crop={crop},format=gray", "-f", "rawvideo")
    await ffmpeg.run((*source, *shown, str(target)), timeout_s=20)
    return await asyncio.to_thread(target.read_bytes)


def running() -> set[int]:
    """The children of this process that have not ended, zombies included."""
    me = f"/proc/{os.getpid()}/task"
    return {int(pid) for task in Path(me).iterdir() for pid in (task / "children").read_text().split()}


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
    assert await render(tmp_path / "card.mp4", width=width, height=height, seconds=1.25) == Film(
        1.25, *expected, "h264"
    )


async def test_a_card_can_be_played_from_its_first_bytes(tmp_path: Path) -> None:
    await render(tmp_path / "card.mp4")
    raw = await asyncio.to_thread((tmp_path / "card.mp4").read_bytes)
    assert raw.index(b"moov") < raw.index(b"mdat")
    assert mp4.sniff(raw[:64]) == "video/mp4"


async def test_the_clock_runs(tmp_path: Path) -> None:
    card = tmp_path / "card.mp4"
    await render(card, seconds=2)
    clock = "iw*0.4:ih*0.14:0:ih*0.82"
    first, second = await picture(card, 0.5, clock), await picture(card, 1.5, clock)
    changed = sum(abs(a - b) > 100 for a, b in zip(first, second, strict=True))
    assert changed > 20


async def test_the_prompt_is_drawn(tmp_path: Path) -> None:
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
async def test_no_text_can_do_anything(tmp_path: Path, text: str) -> None:
    card = tmp_path / "card.mp4"
    assert await render(card, prompt=text, title=text, notes=text, seconds=0.25) == Film(0.25, 320, 180, "h264")


async def test_an_expansion_in_the_prompt_is_drawn_as_it_is(tmp_path: Path) -> None:
    card = tmp_path / "card.mp4"
    await render(card, prompt="%{pts:hms} %{n}", seconds=2)
    # The ground moves too, but never to where letters are bright.
    bright = [[v > 220 for v in await picture(card, start, "iw*0.8:ih*0.4:0:ih*0.2")] for start in (0.2, 1.7)]
    changed = sum(a != b for a, b in zip(*bright, strict=True))
    assert sum(bright[0]) > 100
    assert changed < sum(bright[0]) / 4


async def test_pictures_of_a_film(tmp_path: Path) -> None:
    film, thumbnail, sheet = (tmp_path / name for name in ("card.mp4", "t.webp", "s.jpg"))
    await render(film, width=1280, height=720, seconds=1)
    await ffmpeg.thumbnail(film, thumbnail, duration_s=1, timeout_s=20)
    await ffmpeg.spritesheet(film, sheet, duration_s=1, timeout_s=20)
    for path, kind, size in ((thumbnail, "image/webp", 640 * 360), (sheet, "image/jpeg", 800 * 450)):
        assert mp4.sniff(await asyncio.to_thread(path.read_bytes)) == kind
        shown = await picture(path, 0)
        assert len(shown) == size
    bottom_right = await picture(sheet, 0, "160:90:640:360")
    assert max(bottom_right) > 150


@pytest.mark.parametrize("duration_s", [None, 1, 1_000_000])
async def test_pictures_of_a_film_whose_length_is_told_wrongly(tmp_path: Path, duration_s: float | None) -> None:
    film, thumbnail, sheet = (tmp_path / name for name in ("card.mp4", "t.webp", "s.jpg"))
    await render(film, seconds=0.3)
    await ffmpeg.thumbnail(film, thumbnail, duration_s=duration_s, timeout_s=20)
    await ffmpeg.spritesheet(film, sheet, duration_s=duration_s, timeout_s=20)
    assert len(await picture(thumbnail, 0)) == 320 * 180
    assert len(await picture(sheet, 0)) == 800 * 450


@pytest.mark.parametrize(
    "content",
    [b"", b"no film at all", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"],
)
async def test_a_file_that_is_no_film_is_a_short_error_without_paths(tmp_path: Path, content: bytes) -> None:
    film = tmp_path / "film"
    await asyncio.to_thread(film.write_bytes, content)
    with pytest.raises(FfmpegFailed) as caught:
        await ffmpeg.thumbnail(film, tmp_path / "t.webp", timeout_s=20)
    assert caught.value.code == "ffmpeg_failed"
    assert str(tmp_path) not in caught.value.message
    assert "passwd" not in caught.value.message
    assert len(caught.value.message) < 400


FOREVER = ("-f", "lavfi", "-i", "testsrc2=s=64x64", "-f", "null", "-")


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


async def test_no_more_than_two_run_at_once(process_ids: ProcessIds) -> None:
    tasks = [asyncio.create_task(ffmpeg.run(FOREVER, timeout_s=60)) for _ in range(5)]
    await started(process_ids, ffmpeg.AT_ONCE)
    await started(process_ids, ffmpeg.AT_ONCE + 1, turns=200)
    seen = len(process_ids())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == ffmpeg.AT_ONCE
    assert process_ids() == set()


def test_without_ffmpeg_the_error_names_the_next_step() -> None:
    script = (
        "import sys; sys.modules['imageio_ffmpeg'] = None\n"
        "from app import ffmpeg\n"
        "try: ffmpeg.program()\n"
        "except ffmpeg.FfmpegMissing as error: print(error.message)"
    )
    said = subprocess.run([sys.executable, "-c", script], env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == (
        "there is no ffmpeg program here: install ffmpeg or `pip install video-gateway[ffmpeg]`"
    )
    assert issubclass(FfmpegMissing, FfmpegFailed)
