"""The download step: copies the finished video file into the store and measures it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from app import errors
from app.jobs import lifecycle, purge
from app.jobs.claim import Claim
from app.jobs.context import StepContext, StepTooLong
from app.jobs.metrics import count_capped, count_underpriced
from app.jobs.spans import facts_of
from app.media import sniff
from app.media.measure import measure
from app.media.store import IncompleteFile, StorageUnavailable
from app.providers.base import Provider
from app.telemetry import traces
from app.telemetry.logs import log
from app.video import Output

MAX_TRIES = 8
"""Failed downloads after which the job fails: at once if the file itself is cut off, else after its deadline."""
STORAGE_GAP_S = 30
"""Delay after a failed write to the store."""
TEXT_TYPES = ("text/", "application/json", "application/xml")


class OutputIncomplete(errors.UpstreamUnavailable):
    """The connection broke off within the file, or the file is not of the size announced."""

    default_code = "output_incomplete"


class TextInstead(errors.UpstreamUnavailable):
    """An error page or a playlist was sent in place of the file."""


class OutputCutOff(OutputIncomplete):
    """The file was received as it was sent, and its end is missing."""


async def download(context: StepContext, claim: Claim) -> None:
    """Download the finished file of a claimed attempt and record it."""
    store = "s3" if (context.settings.storage_url or "").startswith("s3:") else "file"
    with traces.step("video.store", claim.video.traceparent, **facts_of(claim), store=store):
        await _download(context, claim)


async def _download(context: StepContext, claim: Claim) -> None:
    provider = context.provider_of(claim)
    # The lease is part of the key: a worker that lost it deletes its own file, never that of another worker.
    stem = f"{claim.folder}{(claim.attempt.lease or '')[-10:]}"
    try:
        if provider is None:
            raise context.not_configured(claim)
        await purge.delete_earlier_files(claim, context.db, context.store)
        limit_s = provider.config.file_timeout_s
        output = await context.bounded(claim, _store_output(context, claim, provider, stem), limit_s=limit_s)
    except errors.UpstreamFailed as error:
        await context.fail(claim, error.code, error.message, error.body)
    except errors.UpstreamGone as error:
        await _file_gone(context, claim, error)
    except errors.UpstreamError as error:
        await _download_later(context, claim, error)
    except StepTooLong as error:
        message = f"{claim.attempt.provider} was given up: {error}"
        await _download_later(context, claim, errors.UpstreamUnavailable(message, provider=claim.attempt.provider))
    except errors.PayloadTooLarge as error:
        await context.fail(claim, "output_too_large", error.message)
    except StorageUnavailable as error:  # a fault of the gateway: the job must not fail
        log.error("file not stored, download repeated later", error=error.message)
        traces.fail(error.code)
        await context.record(lifecycle.release, claim, now=context.after(STORAGE_GAP_S))
    else:
        traces.note(bytes=output["size"], sha256=output["sha256"], content_type=output["content_type"])
        now = context.clock()
        retention_s = claim.request.retention_s or context.settings.retention_s
        expires_at = now + timedelta(seconds=retention_s) if retention_s else None
        cost = lifecycle.cost_of(claim, output["duration_s"])
        video = await context.end(lifecycle.stored, claim, output, cost, expires_at=expires_at, now=now)
        if video is not None and cost.uncapped_micros is not None:
            count_capped(claim.attempt, cost)
        if video is not None:
            count_underpriced(claim.attempt, cost)
        await purge.delete_stray_files(claim, context.db, context.store, output["key"])


async def _store_output(context: StepContext, claim: Claim, provider: Provider, stem: str) -> dict[str, Any]:
    """Store and measure the file of a finished task; returns the output for `lifecycle.stored`. Its key is `stem` and
    the suffix of its type.

    Raises what `Provider.fetch` does, `OutputIncomplete`, `PayloadTooLarge`, `StorageUnavailable`.
    """
    output = Output.model_validate(claim.attempt.output)
    max_bytes = context.settings.max_file_mb * 2**20
    begun = False
    try:
        async with provider.fetch(await context.build_task(claim), output) as file:
            begun = True
            head, chunks = await _with_head(file.chunks)
            content_type = _type_of(head, file.content_type, provider)
            key = f"{stem}.{sniff.suffix_of(content_type)}"
            stored = await context.store.put(
                key, chunks, max_bytes=max_bytes, expected_size=file.size, content_type=content_type
            )
    except IncompleteFile as error:
        raise OutputIncomplete(error.message, provider=provider.name) from error
    except errors.UpstreamUnavailable as error:
        if begun and not isinstance(error, TextInstead):
            raise OutputIncomplete(error.message, provider=provider.name, body=error.body) from error
        raise
    measured = await measure(context.store, stored)
    if measured.truncated:
        await context.store.delete([key])
        raise OutputCutOff(f"the end of the file from {provider.name} is missing", provider=provider.name)
    return {
        "index": claim.attempt.output_index,
        "key": key,
        "size": stored.size,
        "sha256": stored.sha256,
        "content_type": content_type,
        "width": measured.width,
        "height": measured.height,
        "duration_s": measured.duration_s,
    }


async def _with_head(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the first bytes of a stream, and the whole stream."""
    head = bytearray()
    while len(head) < sniff.HEAD_BYTES and (chunk := await anext(chunks, b"")):
        head += chunk

    async def rejoined() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for chunk in chunks:
            yield chunk

    return bytes(head), rejoined()


def _type_of(head: bytes, declared: str | None, provider: Provider) -> str:
    """The content type by the first bytes; of unknown bytes the declared one. Raises `TextInstead`."""
    declared = (declared or "").partition(";")[0].strip().lower()
    content_type = sniff.sniff(head)
    if content_type is None and (declared.startswith(TEXT_TYPES) or sniff.is_text(head)):
        raise TextInstead(f"{provider.name} sent a text instead of a video", provider=provider.name)
    return content_type or (declared if sniff.VIDEO_TYPE.fullmatch(declared) else "video/mp4")


async def _file_gone(context: StepContext, claim: Claim, error: errors.UpstreamGone) -> None:
    """Poll again, which may name another place; fail after several times, or at the address that an operator gave."""
    traces.fail(error.code)
    failures = claim.attempt.consecutive_failures + 1
    given = (claim.attempt.output or {}).get("direct")
    if error.code == "no_output" and failures >= lifecycle.MAX_CONSECUTIVE_FAILURES:
        await context.fail(claim, error.code, error.message, error.body)
    elif given or failures >= lifecycle.MAX_CONSECUTIVE_FAILURES:
        await context.fail(claim, "output_gone", f"the finished file is gone: {error.message}", error.body)
    else:
        due_at = context.after(context.backoff_s(failures, error))
        await context.record(lifecycle.poll_again, claim, due_at=due_at)


async def _download_later(context: StepContext, claim: Claim, error: errors.UpstreamError) -> None:
    traces.fail(error.code)
    failures = claim.attempt.consecutive_failures + 1
    log.warning("download failed", consecutive_failures=failures, error=error.message, body=error.body)
    if failures >= MAX_TRIES and (isinstance(error, OutputCutOff) or context.clock() >= claim.video.deadline_at):
        code = error.code if isinstance(error, OutputIncomplete) else "output_unavailable"
        message = f"the finished file could not be downloaded: {error.message}"
        await context.fail(claim, code, message, error.body)
        return
    due_at = context.after(context.backoff_s(failures, error))
    await context.record(lifecycle.snooze, claim, due_at=due_at, consecutive_failures=failures)
