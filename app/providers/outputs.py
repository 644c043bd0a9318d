"""Places at which a finished task names its file, shared by all adapters. Pure functions; all input is untrusted."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from app.providers.answers import file_url
from app.providers.base import Task
from app.video import Media, Output

Place = tuple[str, ...]
"""Names from the top of an answer down; a list on the way is entered, entry by entry."""

PLACES: tuple[Place, ...] = (
    ("output", "url"),
    ("url",),
    ("video_url",),
    ("data", "url"),
    ("data", "b64_json"),
    ("data", "video_url"),
    ("data", "result_url"),
    ("outputs",),
    ("outputs", "url"),
    ("outputs", "video_url"),
    ("output",),
    ("output", "video_url"),
    ("content", "video_url"),
    ("content", "url"),
    ("result_url",),
    ("result", "video_url"),
    ("result", "url"),
    ("result", "videos", "url"),
    ("video", "url"),
    ("video", "download_url"),
    ("video",),
    ("videos", "url"),
    ("videos",),
    ("assets", "video"),
    ("task_result", "videos", "url"),
    ("urls",),
    ("b64_json",),
    ("download_url",),
    ("output_url",),
    ("metadata", "url"),
    ("metadata", "video_url"),
    ("metadata", "result_url"),
)

MAX_ENTRIES = 16
"""Entries of a list that are looked at."""
NOT_VIDEO_TYPES = ("image", "image_url", "thumbnail", "audio", "audio_url", "text", "last_frame", "spritesheet")
"""Values of `type` of entries in a list that are not the video."""
NOT_VIDEO_NAMES = re.compile(r"\.(?:png|jpe?g|heic|avif|svg|mp3|wav|json|txt|srt|vtt|html?)$", re.IGNORECASE)
DATA_URL = re.compile(r"data:(?:video/|application/|image/gif|image/webp|[;,])", re.IGNORECASE)
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8}")


def find_output(job: dict[str, Any], *, first: Collection[Place] = (), sent: Collection[str] = ()) -> Output | None:
    """The file of a finished task: the first usable value at the places that its vendor documents (`first`), then at
    these; None if there is none.

    | place | known from |
    | --- | --- |
    | `output.url`, `output[].url`; `output`, `output[]` | Lumenfall, Luma Agents; Replicate, Runway, one reseller |
    | `url`, `urls[]` | SGLang, new-api's own wire |
    | `video_url` | Lunos, other resellers |
    | `data[].url`, `data[].b64_json` | Lumen; servers that answer in the shape of OpenAI's images |
    | `data.video_url`, `data.result_url` | new-api's envelope around a task |
    | `outputs[]`, `outputs[].url`, `outputs.video_url` | WaveSpeed, Kling 2.0, Together |
    | `output.video_url` | DashScope |
    | `content.video_url`, `content.url` | Ark, MiniMax 2 |
    | `result_url`, `result.video_url`, `result.url`, `result.videos[].url` | new-api, Luma's resellers, APIMart |
    | `video.url`, `video.download_url`, `video`, `videos[].url`, `videos[]` | fal, xAI, gpt.ge; Vertex-shaped relays |
    | `assets.video` | Luma |
    | `task_result.videos[].url` | Kling 1 |
    | `b64_json`, `download_url`, `output_url` | workers behind a queue |
    | `metadata.url`, `metadata.video_url`, `metadata.result_url` | new-api; last, since others echo the caller's own |

    A value is an http(s) URL, a path of the upstream, a `data:` URL, or base64 where the name says so; blanks around it
    do not count. Not taken are pictures, sounds and texts by their type or name, and what is in `sent`. Of several
    outputs the first counts: each output of a request is a task of its own.
    """
    for place in (*first, *PLACES):
        for path, value in _values_at(job, place, ()):
            output = _output_of(path, value, sent)
            if output is not None:
                return output
    return None


def sent_urls(task: Task) -> set[str]:
    """URLs that the request carried, which an upstream may echo: none of them is the output."""
    request = task.request
    media = [request.source, request.first_frame, request.last_frame, request.reference_video]
    links = [task.link(medium) for medium in (*media, *request.reference_images) if isinstance(medium, Media)]
    signed = {link.partition("?")[0] for link in links if link is not None}  # signed anew for each task
    carried = {value for value in _texts(request.model_dump(mode="json")) if "://" in value}
    return signed | carried | ({task.callback_url} if task.callback_url else set())


def _values_at(value: Any, place: Place, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Path and value of everything at a place."""
    if isinstance(value, list):
        for index, entry in enumerate(value[:MAX_ENTRIES]):
            if not isinstance(entry, list):
                yield from _values_at(entry, place, (*path, index))
    elif not place:
        yield path, value
    elif isinstance(value, dict) and value.get("type") not in NOT_VIDEO_TYPES:
        yield from _values_at(value.get(place[0]), place[1:], (*path, place[0]))


def _output_of(path: tuple[str | int, ...], value: Any, sent: Collection[str]) -> Output | None:
    if not isinstance(value, str):
        return None
    text = value.strip()
    if DATA_URL.match(text) or ("b64_json" in path and BASE64.match(text)):
        return Output(inline=path)
    url = file_url(text)
    bare = text.partition("#")[0].partition("?")[0]
    if url is None or text in sent or bare in sent or NOT_VIDEO_NAMES.search(bare):
        return None
    return Output(url=url)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as inner:
                waiting += inner.values()
            case list() as inner:
                waiting += inner
