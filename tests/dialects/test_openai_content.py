"""The OpenAI dialect: polling, the file with its ranges and pictures, and signed links."""

import pytest
from dialects.openai_wire import Upstream, error_of
from harness import ORIGIN, Running, StartGateway

pytestmark = pytest.mark.anyio


# Polling and the file


async def test_a_poll_is_answered_with_the_next_interval(gateway: Running) -> None:
    video = await gateway.create(model="sandbox/slow")
    running = await gateway.client.get(f"/v1/videos/{video['id']}")
    assert running.headers["openai-poll-after-ms"].isdigit()
    assert running.headers["cache-control"] == "no-store"
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    ended = await gateway.client.get(f"/v1/videos/{video['id']}")
    assert "openai-poll-after-ms" not in ended.headers
    assert ended.headers["cache-control"] == "no-store"
    assert ended.json()["error"] == {"code": "cancelled", "message": "The video was cancelled on request."}


async def test_content_of_an_unfinished_or_failed_video_is_an_error(gateway: Running) -> None:
    slow = await gateway.create(model="sandbox/slow")
    early = await gateway.client.get(f"/v1/videos/{slow['id']}/content")
    assert error_of(early, 409)["code"] == "video_not_ready"
    assert early.headers["x-should-retry"] == "false"
    failed = await gateway.finish((await gateway.create(model="sandbox/fail"))["id"])
    assert failed["status"] == "failed"
    error = error_of(await gateway.client.get(f"/v1/videos/{failed['id']}/content"), 404)
    assert error["code"] == "video_failed"
    source = {"prompt": "p", "video": {"id": failed["id"]}}
    assert error_of(await gateway.client.post("/v1/videos/edits", json=source), 400)["param"] == "video"


async def test_a_completed_video_serves_its_file(up: Upstream) -> None:
    done = await up.completed(seconds="4")
    video_file = up.fake.file
    url = f"/v1/videos/{done['id']}/content"
    whole = await up.client.get(url)
    assert (whole.status_code, whole.content) == (200, video_file)
    headers = {
        "accept-ranges": "bytes",
        "content-type": "video/mp4",
        "content-length": str(len(video_file)),
        "cache-control": "private, max-age=3600",
        "content-disposition": f'inline; filename="{done["id"]}.mp4"',
        "x-content-type-options": "nosniff",
    }
    assert {name: whole.headers.get(name) for name in headers} == headers
    head = await up.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers.get(name) for name in headers} == headers
    assert head.headers["etag"] == whole.headers["etag"]
    assert done["output"] == {
        **{name: done["output"][name] for name in ("url", "thumbnail_url", "spritesheet_url")},
        "expires_at": int(up.gateway.clock().timestamp()) + 3_600,
        "content_type": "video/mp4",
        "size_bytes": len(video_file),
        "duration_seconds": 0.25,
        "width": 64,
        "height": 48,
    }
    assert error_of(await up.client.get(f"{url}?index=1"), 404)["param"] == "index"
    assert error_of(await up.client.get(f"{url}?index=x"), 400)["param"] == "index"
    assert error_of(await up.client.get(f"{url}?variant=poster"), 400)["param"] == "variant"


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=10-9999999", 10, None),
        ("bytes=-9999999", 0, None),
    ],
)
async def test_a_range_returns_that_part_of_the_file(up: Upstream, wanted: str, start: int, stop: int | None) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    video_file = up.fake.file
    response = await up.client.get(url, headers={"range": wanted})
    expected = video_file[start:stop]
    first = start % len(video_file)
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(video_file)}"
    assert response.headers["content-length"] == str(len(expected))


async def test_invalid_ranges_are_ignored_and_those_outside_the_file_refused(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    size = len(up.fake.file)
    for wanted in ("bytes=0-1,5-6", "bytes=x", "lines=0-1", "bytes=5-2", "", "bytes=-"):
        response = await up.client.get(url, headers={"range": wanted})
        assert (response.status_code, len(response.content)) == (200, size), wanted
    for wanted in (f"bytes={size}-", "bytes=99999999-99999999", "bytes=-0"):
        response = await up.client.get(url, headers={"range": wanted})
        assert error_of(response, 416)["code"] == "range_not_satisfiable"
        assert response.headers["content-range"] == f"bytes */{size}"


async def test_conditional_requests_are_answered_by_the_entity_tag(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    tag = (await up.client.get(url)).headers["etag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        response = await up.client.get(url, headers={"if-none-match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
    assert (await up.client.get(url, headers={"if-none-match": '"x"'})).status_code == 200
    part_of = {"range": "bytes=0-9"}
    assert (await up.client.get(url, headers={**part_of, "if-range": tag})).status_code == 206
    assert (await up.client.get(url, headers={**part_of, "if-range": '"x"'})).status_code == 200


async def test_pictures_of_a_video_are_made_on_request(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    tags = {(await up.client.get(url)).headers["etag"]}
    for variant, kind, suffix in (("thumbnail", "image/webp", "webp"), ("spritesheet", "image/jpeg", "jpg")):
        response = await up.client.get(f"{url}?variant={variant}")
        assert (response.status_code, response.headers["content-type"]) == (200, kind)
        assert response.headers["content-disposition"].endswith(f'.{suffix}"')
        assert (await up.client.head(f"{url}?variant={variant}")).headers["content-length"] == str(
            len(response.content)
        )
        tags.add(response.headers["etag"])
    assert len(tags) == 3


async def test_several_outputs_of_one_video_have_their_own_files(up: Upstream) -> None:
    done = await up.completed(n=2)
    assert [file["url"].partition("?")[0] for file in done["output"]["files"]] == [
        f"{ORIGIN}/media/{done['id']}/{index}.mp4" for index in range(2)
    ]
    for index in range(2):
        response = await up.client.get(f"/v1/videos/{done['id']}/content?index={index}")
        assert response.content == up.fake.file
        assert response.headers["content-disposition"] == f'inline; filename="{done["id"]}-{index}.mp4"'


async def test_a_file_that_is_lost_is_an_error_and_no_broken_answer(up: Upstream) -> None:
    done = await up.completed()
    for path in (up.gateway.gateway.settings.data_dir / "media" / "videos" / done["id"]).rglob("*"):
        if path.is_file():
            path.unlink()
    error = error_of(await up.client.get(f"/v1/videos/{done['id']}/content"), 404)
    assert error["code"] == "file_not_found"


async def test_an_expired_video_stays_completed_without_its_file(up: Upstream) -> None:
    done = await up.completed(media_retention=3_600)
    assert done["expires_at"] == done["completed_at"] + 3_600
    up.gateway.clock.advance(3_599)
    assert (await up.client.get(f"/v1/videos/{done['id']}/content")).status_code == 200
    up.gateway.clock.advance(1)
    for purged in (False, True):
        if purged:
            await up.gateway.worker.purge()
        error = error_of(await up.client.get(f"/v1/videos/{done['id']}/content"), 404)
        assert error["code"] == "video_expired"
        video = await up.gateway.get(done["id"])
        assert (video["status"], video["output"]) == ("completed", None)


async def test_a_deleted_video_is_gone(up: Upstream) -> None:
    done = await up.completed()
    link = done["output"]["url"]
    path = f"/v1/videos/{done['id']}"
    deleted = await up.client.delete(path)
    assert (deleted.status_code, deleted.json()) == (
        200,
        {"id": done["id"], "object": "video.deleted", "deleted": True},
    )
    for response in (await up.client.get(path), await up.client.get(f"{path}/content"), await up.client.delete(path)):
        error_of(response, 404)
    assert (await up.client.get(link)).status_code == 404
    assert (await up.client.get("/v1/videos")).json()["data"] == []


# Signed links


async def test_a_link_plays_without_a_key_until_it_expires(up: Upstream) -> None:
    done = await up.completed()
    link = done["output"]["url"]
    assert link.startswith(f"{ORIGIN}/media/{done['id']}/0.mp4?exp=")
    no_key = {"authorization": ""}
    played = await up.client.get(link, headers=no_key)
    assert (played.status_code, played.content) == (200, up.fake.file)
    assert (await up.client.head(link, headers=no_key)).status_code == 200
    ranged = await up.client.get(link, headers={**no_key, "range": "bytes=0-9"})
    assert (ranged.status_code, ranged.content) == (206, up.fake.file[:10])
    assert (await up.client.get(f"{link}&utm=1", headers=no_key)).status_code == 200
    up.gateway.clock.advance(up.gateway.gateway.settings.media_url_ttl_s)
    assert "expired" in error_of(await up.client.get(link, headers=no_key), 404)["message"]
    fresh = (await up.gateway.get(done["id"]))["output"]["url"]
    assert (await up.client.get(fresh, headers=no_key)).status_code == 200


async def test_forged_links_are_refused(up: Upstream) -> None:
    done, other = await up.completed(n=2), await up.completed()
    link = done["output"]["files"][0]["url"]
    exp = int(link.partition("exp=")[2].partition("&")[0])
    for forged in (
        link.replace(f"exp={exp}", f"exp={exp + 1}"),
        link.replace(f"exp={exp}", f"exp=0{exp}"),
        link.replace(f"exp={exp}", "exp=" + "9" * 20),
        link[:-1] + ("A" if link[-1] != "A" else "B"),
        link + "A",
        link.partition("&sig")[0],
        link.partition("?")[0],
        link.replace("/0.mp4", "/1.mp4"),
        link.replace("/0.mp4", "/00.mp4"),
        link.replace("/0.mp4", "/7.mp4"),
        link.replace(done["id"], other["id"]),
        link.replace("sig=", "sig=%C3%A9"),
        link.replace("sig=", "sig=%00"),
    ):
        error_of(await up.client.get(forged), 404)


async def test_links_carry_the_public_address(start_gateway: StartGateway) -> None:
    settings = {"public_url": "https://video.example.com/", "providers": {"sandbox": {"testcard_s": 0}}}
    async with start_gateway(**settings) as gateway:
        done = await gateway.finish((await gateway.create(seconds=1, size="64x64"))["id"])
        assert done["output"]["url"].startswith(f"https://video.example.com/media/{done['id']}/0.mp4?exp=")
