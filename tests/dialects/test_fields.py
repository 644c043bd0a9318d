"""The dialects of other vendors: refused fields, and pictures in every form."""

import base64
from typing import Any

import pytest
from dialects.vendors import APILAPLAS, APILAPLAS_V1, LUMA, LUMEN, LUNOS, UNKNOWN_ID, fresh
from fakes.openai import FakeOpenAI
from fakes.server import KEY, File, serve
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio


SOURCE = {"type": "generation", "id": UNKNOWN_ID}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


@pytest.mark.parametrize(
    ("path", "changed", "named"),
    [
        (LUNOS, {"model": None}, "model"),
        (LUNOS, {"response_format": "webm"}, "response_format"),
        (LUNOS, {"parameters": {"aspectRatio": "wide"}}, "aspect_ratio"),
        (LUNOS, {"parameters": "16:9"}, "parameters"),
        (LUNOS, {"n": 4}, "n is not a field of this call"),
        (LUMEN, {"model": None}, "model"),
        (LUMEN, {"duration": 3}, "duration"),
        (LUMEN, {"duration": 4.5}, "duration"),
        (LUMEN, {"duration": True}, "duration"),
        (LUMEN, {"duration": "5s"}, "duration"),
        (LUMEN, {"seconds": 5}, "seconds is not a field of this call"),
        (LUMEN, {"seed": 5}, "seed is not a field of this call"),
        (LUMEN, {"resolution": "big"}, "resolution"),
        (LUMEN, {"image_url": "ftp://example.com/a.png"}, "image_url"),
        (LUMEN, {"reference_images": ["a.png"]}, "reference_images"),
        (LUMEN, {"webhook_url": "https://example.com/hook"}, "webhook_secret"),
        (LUMEN, {"webhook_url": "example.com", "webhook_secret": "s"}, "webhook_url"),
        (LUMA, {"user_prompt": None}, "user_prompt"),
        (LUMA, {"image_url": "not a picture"}, "image_url"),
        (LUMA, {"image_url": {"file_id": "f"}}, "image_url"),
        (LUMA, {"notify_hook": "ftp://example.com"}, "notify_hook"),
        (LUMA, {"aspect_ratio": "19x9"}, "aspect_ratio"),
        (LUMA, {"duration": "long"}, "duration"),
        (APILAPLAS, {"callback_url": "//example.com"}, "callback_url"),
        (APILAPLAS, {"generation_type": "image"}, "generation_type"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "image"}}}, "keyframes.frame0.url"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "generation"}}}, "keyframes.frame0.id"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "clip", "url": "https://example.com"}}}, "keyframes.frame0"),
        (APILAPLAS, {"keyframes": {"frame2": {"type": "image", "url": "https://example.com"}}}, "keyframes.frame2"),
        (APILAPLAS, {"keyframes": {"frame1": {"type": "generation"}}}, "keyframes.frame1.id"),
        (APILAPLAS, {"keyframes": {"frame0": SOURCE, "frame1": SOURCE}}, "keyframes.frame1"),
        (APILAPLAS, {"keywords": {"frame0": SOURCE, "frame1": SOURCE}}, "keywords.frame1"),
        (APILAPLAS, {"keywords": {"frame0": {"type": "image"}}}, "keywords.frame0.url"),
        (APILAPLAS, {"keywords": "boats, water"}, "keywords"),
        (APILAPLAS, {"keyframes": {}, "keywords": {}}, "keywords: send keyframes or keywords"),
        (APILAPLAS_V1, {"user_prompt": " "}, "user_prompt"),
        (APILAPLAS_V1, {"user_prompt": "a boat", "aspect_ratio": "wide"}, "aspect_ratio"),
        (APILAPLAS_V1, {"user_prompt": "a boat", "seconds": 5}, "seconds is not a field of this call"),
    ],
)
async def test_invalid_fields_are_refused_by_name(
    gateway: Running, path: str, changed: dict[str, Any], named: str
) -> None:
    start = {"user_prompt": "a boat"} if path in (LUMA, APILAPLAS_V1) else fresh()
    body = {name: value for name, value in {**start, **changed}.items() if value is not None}
    response = await gateway.client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert named in response.text
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


@pytest.mark.parametrize("path", [LUMA, APILAPLAS])
@pytest.mark.parametrize("form", ["url", "data", "bare", "lines"])
async def test_pictures_are_read_in_every_form(start_gateway: StartGateway, path: str, form: str) -> None:
    encoded = base64.b64encode(PNG).decode()
    picture = {
        "url": "https://example.com/a.png",
        "data": f"data:image/png;base64,{encoded}",
        "bare": encoded,
        "lines": "\r\n".join(encoded[start : start + 40] for start in range(0, len(encoded), 40)) + "\n",
    }[form]
    body: dict[str, Any] = {"user_prompt": "a boat", "image_end_url": picture}
    if path == APILAPLAS:
        body = {"prompt": "a boat", "keyframes": {"frame0": None, "frame1": {"type": "image", "url": picture}}}
    fake = FakeOpenAI()
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with start_gateway(providers={"up": up}, default_model="up/sora-2") as gateway:
            response = await gateway.client.post(path, json=body)
            await gateway.worker.run_once()
            assert response.status_code in (200, 201)
    sent = fake.submits[-1].fields["last_frame"]
    assert sent == ({"image_url": picture} if form == "url" else File.of("upload.png", "image/png", PNG))


OPENAI = "/v1/videos"
FIXED, TEXT = "fixed/luma", "text/google/veo-3.0-generate-preview"
IMAGE = {"type": "image", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("path", "model", "changed", "named"),
    [
        (LUNOS, FIXED, {"parameters": {"negativePrompt": "rain"}}, "parameters.negativePrompt"),
        (LUNOS, FIXED, {"parameters": {"aspectRatio": "21:9"}}, "parameters.aspectRatio"),
        (LUMEN, TEXT, {"first_frame_url": IMAGE["url"]}, "first_frame_url"),
        (LUMEN, TEXT, {"last_image_url": IMAGE["url"]}, "last_image_url"),
        (LUMA, FIXED, {"duration": "5s"}, "duration"),
        (LUMA, FIXED, {"aspect_ratio": "16:9", "resolution": "720p"}, "resolution"),
        (LUMA, FIXED, {"aspect_ratio": "21:9", "expand_prompt": True}, "aspect_ratio"),
        (LUMA, TEXT, {"image_url": IMAGE["url"]}, "image_url"),
        (LUMA, TEXT, {"image_end_url": IMAGE["url"]}, "image_end_url"),
        (APILAPLAS, FIXED, {"duration": "5s"}, "duration"),
        (APILAPLAS, TEXT, {"keyframes": {"frame0": IMAGE}}, "keyframes.frame0"),
        (APILAPLAS, TEXT, {"keywords": {"frame1": IMAGE}}, "keywords.frame1"),
        (APILAPLAS_V1, TEXT, {"expand_prompt": True}, "expand_prompt"),
        (OPENAI, FIXED, {"duration": 5}, "duration"),
        (OPENAI, FIXED, {"seconds": 5}, "seconds"),
        (OPENAI, FIXED, {"size": "21:9"}, "size"),
        (OPENAI, FIXED, {"aspect_ratio": "21:9"}, "aspect_ratio"),
        (OPENAI, FIXED, {"aspect_ratio": "16:9", "resolution": "720p"}, "resolution"),
        (OPENAI, TEXT, {"image_url": IMAGE["url"]}, "image_url"),
        (OPENAI, TEXT, {"image_url": [IMAGE["url"], "https://example.com/b.png"]}, "image_url"),
        (OPENAI, TEXT, {"input_reference": IMAGE["url"]}, "input_reference"),
        (OPENAI, TEXT, {"reference_images": [IMAGE["url"]]}, "reference_images"),
        (OPENAI, TEXT, {"video_url": IMAGE["url"]}, "video_url"),
        (OPENAI, TEXT, {"input_video": IMAGE["url"]}, "input_video"),
    ],
)
async def test_what_a_model_cannot_express_is_named_in_the_clients_words(
    start_gateway: StartGateway, path: str, model: str, changed: dict[str, Any], named: str
) -> None:
    providers = {name: {"kind": kind, "api_key": KEY} for name, kind in (("fixed", "gptge"), ("text", "lunos"))}
    prompt = "user_prompt" if path in (LUMA, APILAPLAS_V1) else "prompt"
    async with start_gateway(providers=providers) as gateway:
        response = await gateway.client.post(path, json={prompt: "a boat", "model": model, **changed})
        assert response.status_code == 400, response.text
        assert f"{model} cannot express {named}: " in response.text
        assert (await gateway.client.get("/v1/videos")).json()["data"] == []
