"""Makes, polls and downloads a video with the client of openapi-python-client. Takes URL, key and path of the file."""

import sys
from io import BytesIO
from pathlib import Path
from typing import assert_type

from video_gateway_client import AuthenticatedClient
from video_gateway_client.api.videos import create_video, download_content, retrieve_video
from video_gateway_client.models import CreateVideo, CreateVideoForm, OpenAIError, Status, Video, VideoFailure
from video_gateway_client.types import File

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250))


def finished(client: AuthenticatedClient, created: object) -> Video:
    assert isinstance(created, Video), created
    video = created
    while video.status not in (Status.COMPLETED, Status.FAILED):
        found = retrieve_video.sync(video.id, client=client, wait=10)
        assert isinstance(found, Video), found
        video = found
    return video


def main(url: str, key: str, path: str) -> None:
    with AuthenticatedClient(base_url=url, token=key) as client:
        body = CreateVideo(prompt="a paper boat", model="sandbox/testcard", seconds=2)
        video = finished(client, create_video.sync(client=client, body=body))
        assert video.status is Status.COMPLETED, video.error
        assert video.output is not None
        assert_type(video.progress, int)
        assert_type(video.error, VideoFailure | None)
        assert_type(video.output.url, str)
        assert_type(video.output.width, int | None)
        file = download_content.sync(video.id, client=client)
        assert isinstance(file, File), file
        Path(path).write_bytes(file.payload.read())
        assert Path(path).stat().st_size == video.output.size_bytes

        picture = File(payload=BytesIO(PNG), file_name="boat.png", mime_type="image/png")
        form = CreateVideoForm(prompt="a paper boat", model="sandbox/testcard", input_reference=picture)
        assert finished(client, create_video.sync(client=client, body=form)).status is Status.COMPLETED

        refused = retrieve_video.sync("video_unknown", client=client)
        assert isinstance(refused, OpenAIError), refused
        sys.stdout.write(f"{refused.error.code}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
