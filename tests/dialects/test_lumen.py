"""The Lumen dialect: two names for each input, sizes, lengths and defaults."""

import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, has_picture, openai_message, vendor_case
from dialects.vendors import LUMEN, asked, fresh
from harness import Running

from app.video import VideoRequest

pytestmark = pytest.mark.anyio

INPUTS = Inputs(
    prompt="prompt",
    structured=("first_frame_url", {"url": PICTURE_URL}),
    keyed={"first_frame_url[url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"image_url": value},
    picture_param="image_url",
    picture_part="image_url",
)
CASES: dict[str, DialectCase] = {"/v1/videos/generations/": vendor_case(LUMEN, openai_message, inputs=INPUTS)}


async def test_lumen_has_two_names_for_each_input(gateway: Running) -> None:
    first = {
        "image_url": "https://example.com/1.png",
        "last_image_url": "https://example.com/2.png",
        "reference_image_urls": ["https://example.com/3.png", "https://example.com/4.png"],
        "reference_video_url": "https://example.com/5.mp4",
    }
    other = {
        "first_frame_url": "https://example.com/6.png",
        "last_frame_url": "https://example.com/7.png",
        "reference_images": ["https://example.com/8.png"],
        "video_url": "https://example.com/9.mp4",
    }

    def urls(request: VideoRequest) -> list[str | None]:
        assert request.first_frame
        assert request.last_frame
        assert request.reference_video
        pictures = [request.first_frame, request.last_frame, *request.reference_images, request.reference_video]
        return [picture.url for picture in pictures]

    by_number = "https://example.com/{}".format
    assert urls(await asked(gateway, LUMEN, fresh(**first))) == [
        by_number(name) for name in ("1.png", "2.png", "3.png", "4.png", "5.mp4")
    ]
    second = [by_number(name) for name in ("6.png", "7.png", "8.png", "9.mp4")]
    assert urls(await asked(gateway, LUMEN, fresh(**other))) == second
    assert urls(await asked(gateway, LUMEN, fresh(**dict.fromkeys(first, ""), **other))) == second
    both = await asked(gateway, LUMEN, fresh(**other, **first))
    assert urls(both) == urls(await asked(gateway, LUMEN, fresh(**first)))


async def test_lumen_sizes_lengths_and_sound_are_read(gateway: Running) -> None:
    body = fresh(resolution="1080p", aspect_ratio="9:16", duration="5", generate_audio=False)
    request = await asked(gateway, LUMEN, body)
    assert (request.size, request.seconds, request.generate_audio) == ("1080x1920", 5, False)


async def test_lumen_defaults_are_those_of_the_model_that_is_asked(gateway: Running) -> None:
    request = await asked(gateway, LUMEN, fresh())
    assert (request.seconds, request.generate_audio) == (4, None)  # the sandbox's length, not Lumen's
