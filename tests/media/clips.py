"""Short video files, pictures taken apart, and executables that stand in for ffmpeg on PATH."""

import os
import shlex
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg
import pytest

FAST = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "2")
RUBBISH = b"\0\0\0\0\xf8\xff\xff\xff"
"""All that ffmpeg 4.2 to 5.1 writes into a WebP file when there was no frame."""


def real() -> str:
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@lru_cache
def clip(name: str, graph: str = "testsrc=s=320x180:r=12:d=2", *options: str) -> bytes:
    """A video of a test pattern; the ending of its name selects the container."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        source = ("-f", "lavfi", "-i", graph)
        subprocess.run([real(), "-v", "error", *source, *(options or FAST), path], check=True)
        return path.read_bytes()


@lru_cache
def rotated() -> bytes:
    """A video of 320x180 that is shown upright."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.mp4", Path(folder) / "clip.mp4"
        source.write_bytes(clip("clip.mp4"))
        turn = ("-display_rotation", "90", "-i", source, "-c", "copy")
        subprocess.run([real(), "-v", "error", *turn, target], check=True)
        return target.read_bytes()


def with_box_first(kind: bytes) -> bytes:
    """A video whose first box is not `ftyp`."""
    video = clip(
        "clip.mp4", "testsrc=s=320x180:r=12:d=2", *FAST, "-movflags", "frag_keyframe+empty_moov+default_base_moof"
    )
    if kind == b"styp":
        return video.replace(b"ftyp", b"styp", 1)
    box = kind + b"0123456789abcdef" * 2
    return (len(box) + 4).to_bytes(4, "big") + box + video  # fragments are addressed from their own beginning


def noise() -> bytes:
    """A video with a good header and frames that cannot be decoded."""
    video = clip("clip.mp4")
    start, end = video.index(b"mdat") + 4, video.index(b"moov") - 4
    return video[:start] + b"\xff" * (end - start) + video[end:]


def pixels(picture: bytes) -> tuple[int, int, bytes]:
    """Width, height and the RGB bytes of a WebP or JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(picture)
        shown = ("-i", path, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-")
        said = subprocess.run([real(), "-v", "error", *shown], check=True, capture_output=True).stdout
    kind, shape, most, rgb = said.split(b"\n", 3)
    assert (kind, most) == (b"P6", b"255")
    width, height = map(int, shape.split())
    return width, height, rgb


def tile(sheet: bytes, number: int) -> bytes:
    """The RGB bytes of one tile of a sprite sheet."""
    width, height, rgb = pixels(sheet)
    row, column = divmod(number, 5)
    across, down = width // 5, height // 5
    lines = range(row * down, (row + 1) * down)
    return b"".join(rgb[(line * width + column * across) * 3 :][: across * 3] for line in lines)


def brightness(sheet: bytes) -> list[float]:
    """Mean value of each tile of a sprite sheet, 0 to 255."""
    return [sum(shown) / len(shown) for shown in (tile(sheet, number) for number in range(25))]


def brighter(seconds: int, rate: int = 1) -> str:
    """A grey picture that grows brighter in even steps."""
    return f"color=s=64x36:r={rate}:d={seconds},geq=lum=20+200*T/{seconds}:cb=128:cr=128"


class StandIn:
    """An executable named ffmpeg, first on PATH and the newest by its word, that logs each run and then does what
    `script` (shell, with the path of what is to be written as `$target`) says, or runs the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "99.1") -> None:
        self.path, self._log, self._folder = folder / "ffmpeg", folder / "log", folder
        folder.mkdir(exist_ok=True)
        self.version = version
        self.does("")
        monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))

    def does(self, script: str) -> None:
        program, logged = shlex.quote(real()), shlex.quote(str(self._log))
        self.path.write_text(
            f"""#!/bin/sh
case "$*" in
"-hide_banner -version") echo "ffmpeg version {self.version} Copyright"; exit 0 ;;
"-hide_banner "*) exec {program} "$@" ;;
esac
echo "$*" >> {logged}
for target; do :; done
target=${{target#file:}}
{script}
exec {program} "$@"
""",
            "utf-8",
        )
        self.path.chmod(0o755)

    def waits(self) -> None:
        """Let each run wait for `go`."""
        self.does(f"while [ ! -e {shlex.quote(str(self._folder / 'go'))} ]; do sleep 0.01; done")

    def go(self) -> None:
        (self._folder / "go").touch()

    @property
    def runs(self) -> list[str]:
        """The arguments of each run."""
        return self._log.read_text("utf-8").splitlines() if self._log.exists() else []


WRITES_RUBBISH = r"""printf '\000\000\000\000\370\377\377\377' > "$target"; exit 0"""
"""The script of a stand-in that writes `RUBBISH`."""
