"""First and last frames whose ratio is not that of the video: refused, padded or cropped, as the alias says."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import BinaryIO

from app import errors
from app.capabilities import SAME
from app.http.context import Gateway
from app.http.uploads import Uploads
from app.jobs.plan import Plan
from app.media import inputs
from app.media.ffmpeg import FfmpegFailed, FfmpegMissing, FfmpegStopped
from app.media.inputs import Shape
from app.media.uploads import chunks_of
from app.sizes import COMMON_RATIOS
from app.video import ASPECT_RATIO, Media, Operation, VideoRequest

FRAMES = ("first_frame", "last_frame")


@dataclass(frozen=True)
class _Unfit:
    """A frame of another ratio than the video's."""

    name: str
    media: Media
    file: BinaryIO
    shape: Shape | None
    """None: it cannot be read."""
    ratio: tuple[int, int]
    """That of the video."""


async def fit_frames(
    gateway: Gateway, plan: Plan, request: VideoRequest, uploads: Uploads, project_id: str, *, dry: bool = False
) -> Plan:
    """Pad or crop uploaded frames whose ratio is not that of the video, if the alias says so; returns the plan with
    them. With `dry` it only says what would be done.

    Raises `InvalidRequest` with the ratios that fit where the alias says nothing, and for a picture that cannot be
    read; `FfmpegMissing`, `FfmpegStopped`, `RateLimited`.
    """
    if not uploads.files:  # as of most requests
        return plan
    alias = gateway.router.aliases.get(request.model)
    fit = "refuse" if alias is None else alias.frames
    made: dict[str | None, Media] = {}
    frames, warnings = {}, list(plan.warnings)
    for unfit in await asyncio.to_thread(lambda: list(_unfit_frames(gateway, plan, request, uploads))):
        shown, shape, (across, down) = request.client_names.get(unfit.name) or unfit.name, unfit.shape, unfit.ratio
        if shape is None:
            warnings.append(f"{shown}: the size of the picture cannot be read, so its ratio was not checked")
            continue
        if fit == "refuse":
            raise _mismatch(plan, shape, unfit.ratio, shown)
        _refuse_large(unfit.media, shape, unfit.ratio, fit, shown)
        if not dry and unfit.media.key not in made:  # a loop has one picture for both
            made[unfit.media.key] = await _fitted(gateway, unfit, shape, fit, shown, uploads, project_id)
        frames[unfit.name] = made.get(unfit.media.key, unfit.media)
        done = "padded" if fit == "pad" else "cropped"
        warnings.append(f"{shown} was {done} from {shape.width}x{shape.height} to {across}:{down}")
    return replace(plan, request=plan.request.model_copy(update=frames), warnings=tuple(warnings))


def _mismatch(plan: Plan, shape: Shape, ratio: tuple[int, int], shown: str) -> errors.InvalidRequest:
    across, down = ratio
    ratios = [other for other in _ratios(plan) if _is_near(shape, other)]
    advice = f"ask for {' or '.join(ratios)}, or send" if ratios else "send"
    return errors.InvalidRequest(
        f"{shown}: the picture has {shape.width}x{shape.height} pixels, and the video is to be {across}:{down}; "
        f"{advice} a picture of {across}:{down}",
        param=shown,
        code="frame_ratio_mismatch",
    )


def _refuse_large(media: Media, shape: Shape, ratio: tuple[int, int], fit: inputs.Fit, shown: str) -> None:
    """Refuse a picture that cannot be brought to the ratio within the limits. Raises `InvalidRequest`."""
    across, down = ratio
    width, height = shape.width, shape.height
    longest = max(width * down / across / height, height * across / down / width) if fit == "pad" else 1
    if media.content_type not in inputs.DEMUXERS or width * height > inputs.MAX_PIXELS or longest > inputs.MAX_GROWTH:
        raise errors.InvalidRequest(
            f"{shown}: a picture of {width}x{height} pixels cannot be brought to {across}:{down}; send PNG, JPEG, WebP "
            "or GIF of that ratio",
            param=shown,
        )


def _unfit_frames(gateway: Gateway, plan: Plan, request: VideoRequest, uploads: Uploads) -> Iterator[_Unfit]:
    """The uploaded frames whose ratio is not the one that the client asked for. A `provider/model` is left to the
    vendor, which may crop; under any other name several vendors are asked for the same video."""
    router = gateway.router
    shared = request.model in router.aliases or router.catalogued(request.model) is not None
    wanted = ASPECT_RATIO.fullmatch(plan.request.aspect_ratio or "")
    if not shared or request.aspect_ratio is None or wanted is None or request.operation is not Operation.generate:
        return
    for name in FRAMES:
        media: Media | None = getattr(plan.request, name)
        file = None if media is None else uploads.file_of(media)
        if media is None or file is None:
            continue
        shape = inputs.shape_of(file.read(inputs.HEAD_BYTES))
        file.seek(0)
        if shape is None or not _is_near(shape, wanted[0]):
            yield _Unfit(name, media, file, shape, (int(wanted[1]), int(wanted[2])))


async def _fitted(
    gateway: Gateway, unfit: _Unfit, shape: Shape, fit: inputs.Fit, shown: str, uploads: Uploads, project_id: str
) -> Media:
    """The padded or cropped picture, in place of the upload. Raises `InvalidRequest`, `FfmpegMissing`,
    `FfmpegStopped`, `RateLimited`."""
    with tempfile.TemporaryDirectory(prefix="frame-") as folder:
        source, target = Path(folder) / "source", Path(folder) / "fitted"
        with source.open("wb") as copy:
            async for piece in chunks_of(unfit.file):
                await asyncio.to_thread(copy.write, piece)
        try:
            await inputs.fit_picture(
                source,
                target,
                unfit.media.content_type or "",
                shape,
                unfit.ratio,
                fit,
                project_id=project_id,
                timeout_s=gateway.settings.ffmpeg_timeout_s,
            )
        except (FfmpegMissing, FfmpegStopped):
            raise
        except FfmpegFailed as error:
            raise errors.InvalidRequest(f"{shown}: the picture cannot be read", param=shown) from error
        return uploads.replace(unfit.media, await asyncio.to_thread(target.read_bytes), inputs.MADE)


def _ratios(plan: Plan) -> list[str]:
    """The ratios that a route of the plan makes."""
    found: dict[str, None] = {}
    for route in plan.routes:
        able = route.capabilities_for(plan.request)
        ratios = able.aspect_ratios or COMMON_RATIOS
        if able.sizes:
            ratios = tuple(size.replace("x", ":") for size in able.sizes)
        found |= dict.fromkeys(ratios)
    return list(found)


def _is_near(shape: Shape, ratio: str) -> bool:
    wanted = ASPECT_RATIO.fullmatch(ratio)
    return wanted is not None and abs(log2(shape.width * int(wanted[2]) / (shape.height * int(wanted[1])))) <= SAME
