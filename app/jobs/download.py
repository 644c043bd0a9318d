"""The download step: copies the finished video file into the store."""

from datetime import timedelta
from typing import Any

from app import errors
from app.jobs import lifecycle, purge
from app.jobs.claim import Claim
from app.jobs.context import StepContext, StepTooLong
from app.jobs.metrics import count_capped
from app.media import mp4
from app.media.store import IncompleteFile, StorageUnavailable, probe
from app.providers.base import Provider
from app.telemetry import log
from app.video import Output

MAX_TRIES = 8
"""Failed downloads after which the job fails, once its deadline has passed."""
STORAGE_GAP_S = 30
"""Delay after a failed write to the store."""
TEXT_TYPES = ("text/", "application/json", "application/xml")


async def download(context: StepContext, claim: Claim) -> None:
    """Download the finished file of a claimed attempt and record it."""
    provider = context.provider_of(claim)
    # The lease is part of the key: a worker that lost it deletes its own file, never that of another worker.
    key = f"{claim.folder}{(claim.attempt.lease or '')[-10:]}.mp4"
    try:
        if provider is None:
            raise context.not_configured(claim)
        await context.store.stat(key)  # raises if the store is unavailable, before the download starts
        limit_s = provider.config.file_timeout_s
        output = await context.bounded(claim, _store_output(context, claim, provider, key), limit_s=limit_s)
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
        await context.record(lifecycle.release, claim, now=context.after(STORAGE_GAP_S))
    else:
        now = context.clock()
        retention_s = claim.request.retention_s or context.settings.retention_s
        expires_at = now + timedelta(seconds=retention_s) if retention_s else None
        cost = lifecycle.cost_of(claim, output["duration_s"])
        video = await context.end(lifecycle.stored, claim, output, cost, expires_at=expires_at, now=now)
        if video is not None and cost.uncapped_micros is not None:
            count_capped(claim.attempt, cost)
        await purge.delete_stray_files(claim, context.db, context.store, key)


async def _store_output(context: StepContext, claim: Claim, provider: Provider, key: str) -> dict[str, Any]:
    """Store the file of a finished task under `key`; returns the output for `lifecycle.stored`.

    Raises what `Provider.fetch` does, `PayloadTooLarge`, `StorageUnavailable`.
    """
    output = Output.model_validate(claim.attempt.output)
    max_bytes = context.settings.max_file_mb * 2**20
    async with provider.fetch(await context.build_task(claim), output) as file:
        declared = (file.content_type or "").partition(";")[0].strip().lower()
        likely = declared if mp4.VIDEO_TYPE.fullmatch(declared) else "video/mp4"
        try:
            stored = await context.store.put(
                key, file.chunks, max_bytes=max_bytes, expected_size=file.size, content_type=likely
            )
        except IncompleteFile as error:
            raise errors.UpstreamUnavailable(error.message, provider=provider.name) from error
    content_type = mp4.sniff(stored.head)
    if content_type is None and (declared.startswith(TEXT_TYPES) or mp4.is_text(stored.head)):
        await context.store.delete([key])
        raise errors.UpstreamUnavailable(f"{provider.name} sent a text instead of a video", provider=provider.name)
    header = await probe(context.store, key, stored.size)
    return {
        "index": claim.attempt.output_index,
        "key": key,
        "size": stored.size,
        "sha256": stored.sha256,
        "content_type": content_type or likely,
        "width": header.width if header else None,
        "height": header.height if header else None,
        "duration_s": header.duration_s if header else None,
    }


async def _file_gone(context: StepContext, claim: Claim, error: errors.UpstreamGone) -> None:
    """Poll again, which may name another place; fail after several times, or at the address that an operator gave."""
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
    failures = claim.attempt.consecutive_failures + 1
    log.warning("download failed", consecutive_failures=failures, error=error.message, body=error.body)
    if failures >= MAX_TRIES and context.clock() >= claim.video.deadline_at:
        message = f"the finished file could not be downloaded: {error.message}"
        await context.fail(claim, "output_unavailable", message, error.body)
        return
    due_at = context.after(context.backoff_s(failures, error))
    await context.record(lifecycle.snooze, claim, due_at=due_at, consecutive_failures=failures)
