"""The media store on a directory and on a bucket: files and pictures."""

import asyncio
import hashlib
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app import errors
from app.media import testcard
from app.media.sniff import HEAD_BYTES, sniff
from app.media.store import IncompleteFile, MissingFile, StorageUnavailable, Store, StoredFile
from app.settings import ConfigurationError, Settings

MIB = 2**20
PNG = b"\x89PNG\r\n\x1a\n"


class BrokeOff(Exception):
    """The exception of a source that breaks off."""


async def source(*chunks: bytes, breaks: BaseException | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if breaks is not None:
        raise breaks


async def collect(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def open_store(tmp_path: Path, url: str | None) -> Store:
    return Store.from_settings(Settings(_env_file=None, data_dir=tmp_path, storage_url=url))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(tmp_path, None)


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path, "memory:///" if request.param == "memory" else f"file://{tmp_path}/media")


async def test_a_stored_file_can_be_read_back(store: Store) -> None:
    chunks = [PNG, b"a" * 10, b"", b"b" * 3 * MIB, b"c" * 9 * MIB]
    whole = b"".join(chunks)
    kept = await store.put("videos/v_1/clip.mp4", source(*chunks), max_bytes=len(whole), content_type="video/mp4")
    sha256 = hashlib.sha256(whole).hexdigest()
    assert kept == StoredFile("videos/v_1/clip.mp4", len(whole), sha256, whole[:HEAD_BYTES])
    assert sniff(kept.head) == "image/png"
    assert await store.stat(kept.key) == len(whole)
    assert await collect(store.open(kept.key)) == whole
    assert await collect(store.open(kept.key, 5, 20)) == whole[5:20]
    assert await collect(store.open(kept.key, 7, 5 * MIB + 1)) == whole[7 : 5 * MIB + 1]
    assert await collect(store.open(kept.key, len(whole))) == b""
    assert await store.read(kept.key, 2, 4) == whole[2:6]
    assert await store.read(kept.key, len(whole) - 1, 100) == whole[-1:]
    assert await store.read(kept.key, 0, 0) == b""
    pieces = [len(piece) async for piece in store.open(kept.key)]
    assert all(MIB <= piece <= 8 * MIB for piece in pieces[:-1])
    assert await store.presigned(kept.key, 60) is None


async def test_a_file_in_a_directory_has_a_local_path(store: Store) -> None:
    await store.put("a/b.bin", source(b"12345"), max_bytes=9)
    async with store.as_file("a/b.bin") as path:
        assert await asyncio.to_thread(path.read_bytes) == b"12345"
    assert store.local_path("a/b.bin") in (None, path)
    with pytest.raises(MissingFile):
        async with store.as_file("a/c.bin"):
            pass


async def test_a_second_file_of_the_same_key_replaces_the_first(store: Store) -> None:
    await store.put("a.bin", source(b"first"), max_bytes=9)
    with pytest.raises(BrokeOff):
        await store.put("a.bin", source(b"second", breaks=BrokeOff()), max_bytes=9)
    assert await collect(store.open("a.bin")) == b"first"
    await store.put("a.bin", source(b"third"), max_bytes=9)
    assert await collect(store.open("a.bin")) == b"third"


@pytest.mark.parametrize(
    ("chunks", "breaks", "expected_size", "error"),
    [
        ([b"x" * 20 * MIB], BrokeOff(), None, BrokeOff),
        ([b"x"] * 10, OSError("a pipe"), None, OSError),
        ([], None, None, IncompleteFile),
        ([b"", b""], None, None, IncompleteFile),
        ([], None, 0, IncompleteFile),
        ([b"x" * 2 * MIB], None, 2 * MIB + 1, IncompleteFile),
        ([b"x" * 2 * MIB], None, 2 * MIB - 1, IncompleteFile),
        ([b"x" * 20 * MIB, b"x" * 5 * MIB], None, None, errors.PayloadTooLarge),
    ],
)
async def test_what_goes_wrong_leaves_nothing_behind(
    local: Store,
    tmp_path: Path,
    chunks: list[bytes],
    breaks: BaseException | None,
    expected_size: int | None,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        await local.put(
            "videos/clip.mp4", source(*chunks, breaks=breaks), max_bytes=24 * MIB, expected_size=expected_size
        )
    assert await local.stat("videos/clip.mp4") is None
    assert files(tmp_path) == []


async def test_a_cancelled_put_leaves_nothing_behind_and_closes_its_source(local: Store, tmp_path: Path) -> None:
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 20 * MIB
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(local.put("clip.mp4", stuck(), max_bytes=99 * MIB))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert files(tmp_path) == []


async def test_a_store_that_cannot_be_written_to_is_unavailable(local: Store, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "media" / "videos").write_bytes, b"a file where a folder should be")
    with pytest.raises(StorageUnavailable) as caught:
        await local.put("videos/clip.mp4", source(*[b"x" * MIB] * 40), max_bytes=99 * MIB)
    assert caught.value.status_code == 503
    assert str(tmp_path) not in caught.value.message


async def test_missing_files_raise_missing_file(store: Store) -> None:
    assert await store.stat("a/none.mp4") is None
    with pytest.raises(MissingFile):
        await store.read("a/none.mp4", 0, 1)
    with pytest.raises(MissingFile):
        await collect(store.open("a/none.mp4"))
    with pytest.raises(MissingFile):
        await collect(store.open("a/none.mp4", 0, 10))


async def test_a_delete_removes_the_named_files_only(store: Store) -> None:
    for key in ("v/1/clip.mp4", "v/1/clip.mp4.thumbnail.webp", "v/10/clip.mp4", "w/clip.mp4"):
        await store.put(key, source(b"x"), max_bytes=9)
    await store.delete(["w/none", "w/clip.mp4", "w/clip.mp4"])
    await store.delete_prefix("v/1/")
    await store.delete_prefix("v/none")
    assert [await store.stat(key) for key in ("v/1/clip.mp4", "v/10/clip.mp4", "w/clip.mp4")] == [None, 1, None]


async def test_delete_prefix_clears_the_remains_of_a_killed_upload(local: Store, tmp_path: Path) -> None:
    await local.put("v/1/clip.mp4", source(b"x"), max_bytes=9)
    await asyncio.to_thread((tmp_path / "media/v/1/clip.mp4#1").write_bytes, b"half")
    await local.delete_prefix("v/1")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", "a\nb", "a\x00b", "a b", "é", ".x", "a" * 513]
)
async def test_keys_that_leave_the_folder_are_refused(local: Store, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await local.put(key, source(b"x"), max_bytes=9)
    with pytest.raises(ValueError, match="not a key"):
        await local.stat(key)
    with pytest.raises(ValueError, match="not a key"):
        local.local_path(key)


def test_a_store_that_cannot_be_opened_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="GATEWAY_STORAGE_URL: cannot write to /"):
        open_store(tmp_path, f"file://{tmp_path}/file/media")


async def test_a_bucket_signs_its_own_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret", "REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = open_store(tmp_path, "s3://bucket/some/prefix")
    link = await bucket.presigned("v/clip.mp4", 60) or ""
    assert link.startswith("https://s3.eu-west-1.amazonaws.com/bucket/some/prefix/v/clip.mp4?")
    assert "X-Amz-Expires=60&" in link
    assert bucket.local_path("v/clip.mp4") is None


def test_large_files_do_not_stay_in_memory(tmp_path: Path) -> None:
    script = """if True:
        import asyncio, os, resource, sys
        from app.media.store import Store
        from app.settings import Settings

        def peak():
            unit = 1024**2 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit

        async def video():
            for _ in range(300): yield bytes(2**20)

        async def main():
            store = Store.from_settings(Settings(_env_file=None, data_dir=sys.argv[1]))
            before = peak()
            await store.put("clip.mp4", video(), max_bytes=2**30)
            assert sum([len(piece) async for piece in store.open("clip.mp4")]) == 300 * 2**20
            print(peak() - before, flush=True)
            os._exit(0)  # how a library's threads see the interpreter go is another question

        asyncio.run(main())
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(said.stdout) < 100


@pytest.fixture(scope="module")
async def video_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("card") / "card.mp4"
    await testcard.render_card(path, seconds=1, width=320, height=180, prompt="a card", title="test", timeout_s=20)
    return await asyncio.to_thread(path.read_bytes)


# Who may read the directory


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_the_directory_is_for_this_user_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    open_store(data_dir, None)
    assert mode(data_dir / "media") == 0o700
    assert mode(data_dir) & 0o066 == 0, "other users cannot list it"


def test_a_directory_that_others_can_enter_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media").chmod(0o755)
    with capture_logs() as logs:
        open_store(tmp_path, None)
        open_store(tmp_path, None)
    assert mode(tmp_path / "media") == 0o700
    assert [(entry["event"], entry["path"]) for entry in logs] == [("directory made private", f"{tmp_path}/media")]


def test_a_directory_of_the_operators_choice_keeps_its_mode(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    open_store(tmp_path, theirs.as_uri())
    (tmp_path / "media").symlink_to(theirs)
    open_store(tmp_path, None)
    assert mode(theirs) == 0o755
