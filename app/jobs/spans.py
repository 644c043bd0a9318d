"""Spans of jobs whose beginning lies in another process or before a restart, and the attributes of all."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from datetime import datetime

from app import errors
from app.db.models import Video
from app.jobs.claim import Claim
from app.telemetry import traces
from app.telemetry.traces import Fact, Moment
from app.video import Progress

MAX_ATTEMPTS, MAX_POLLS = 1_000, 50
"""Attempts of which a worker remembers polls, and the newest polls of each."""


def facts_of(claim: Claim) -> dict[str, Fact]:
    """Attributes of the spans of an attempt."""
    attempt, video = claim.attempt, claim.video
    return {
        "video": video.id,
        "project": video.project_id,
        "model": video.model,
        "attempt": attempt.id,
        "output": attempt.output_index,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
    }


class Polls:
    """The polls of running tasks as this worker made them; those of other workers are only counted in the row."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[Moment]] = OrderedDict()

    def note(self, claim: Claim, answer: Progress | errors.UpstreamError, *, at: datetime) -> None:
        if not traces.are_on() or claim.video.traceparent is None:
            return
        if isinstance(answer, errors.UpstreamError):
            facts: dict[str, Fact] = {"code": answer.code}
        else:
            facts = {"status": str(answer.status), "progress": answer.progress}
        polls = self._seen.setdefault(claim.attempt.id, deque(maxlen=MAX_POLLS))
        polls.append(Moment("poll", at, facts))
        self._seen.move_to_end(claim.attempt.id)
        if len(self._seen) > MAX_ATTEMPTS:
            self._seen.popitem(last=False)

    def end(self, claim: Claim, *, code: str | None = None, at: datetime) -> None:
        """Write `video.generate`: the time that the upstream took, from the accepted submit to the last answer."""
        if not traces.are_on():
            return
        attempt = claim.attempt
        polls: Iterable[Moment] = self._seen.pop(attempt.id, ())
        start = attempt.accepted_at or attempt.submitted_at or attempt.created_at
        facts = {**facts_of(claim), "polls": attempt.polls + 1, "upstream_ref": attempt.upstream_ref}
        traces.past("video.generate", claim.video.traceparent, start, at, code=code, moments=tuple(polls), **facts)


def note_ended(video: Video, provider: str) -> None:
    """Write `video.job`: the whole time of a job, from its create to its end."""
    traces.past(
        "video.job",
        video.traceparent,
        video.created_at,
        video.ended_at or video.updated_at,
        code=video.error_code,
        video=video.id,
        project=video.project_id,
        model=video.model,
        provider=provider,
        upstream_model=video.upstream_model,
        status=str(video.status),
    )
