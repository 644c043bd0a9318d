"""MiniMax: H3 by version 2 of its API (`h3.py`), Hailuo and the models before it by version 1 (`hailuo.py`). Sources:
@ai-sdk/minimax 3.0.45 (version 2) and the vendor's minimax-mcp 0.0.19 (version 1), recorded on 2026-11-25
(`tests/recordings/minimax.json`), and the vendor's pages as public copies had them in 2026-11. Not tried live.

Quirks: the model's name decides on the version. Version 2 says errors by HTTP status, with its number in brackets at
the end of the message; version 1 answers 200 to everything, with the number in `base_resp`, and a task that has failed
has one there, too: its status is read first. An unknown id of version 2 is a 500 "record not found", which no retry
helps. A finished task of version 1 names a file, and another call the address of that file, for an hour: it is made
for each download. A callback address gets a challenge first, which the gateway repeats, then the task on each change;
neither is signed. DELETE stops a task that is queued, refuses one that runs, and deletes the record of one that has
ended; version 1 has no such call, and no list. A key works at one of two hosts. Tasks are kept for seven days.
Inferred: that 2013 on a poll of version 1, which has nothing but the id, means that the id is unknown; that numbers for
internal errors in a 200, and a 503, do not say that no task was made, so that a submit with one has an unknown outcome;
that a model which is not in the tables and has another name than those of version 1 is one of version 2, with 5 s and
768P; that the newest task is first in the list, and that `total` counts all of them.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import file_url, listed_tasks, object_of, retry_after_s, segment
from app.providers.base import Download, ListedTask, ProviderConfig, Task
from app.providers.minimax import h3, hailuo
from app.providers.rest import RestProvider
from app.video import Media, Output, Progress, Status, Submission, VideoRequest

MODELS = {**h3.MODELS, **hailuo.MODELS}
PAGE_TASKS = 20
"""Tasks of a page of the list, as in the vendor's example: its maximum is not documented."""
INTERNATIONAL = "https://api.minimax.io"
CHINA = "https://api.minimaxi.com"
NUMBERED = re.compile(r"\((\d{4,6})\)$")
UNKNOWN_TASK = ("record not found", "invalid task_id")
STOPPED = ("cancelled", "canceled", "cancel")
"""Words of an answer to a cancel that has stopped the task; `deleted` is the record of one that had ended."""
CONTENT = ("1026", "1027")
NO_CREDIT = "1008"
NOT_OURS = ("1004", "2038", "2049")
"""Numbers of a refused key, and of an account in China that has not proved its name."""
ACCOUNT_LIMITS = ("2056", "2067")
NUMBERS: dict[str, type[errors.UpstreamError]] = {
    **dict.fromkeys(("1002", "1039", "1041", "2045"), errors.UpstreamRateLimited),
    **dict.fromkeys((*NOT_OURS, *ACCOUNT_LIMITS), errors.UpstreamAccount),
    NO_CREDIT: errors.UpstreamCredit,
    **dict.fromkeys(CONTENT, errors.ContentPolicy),
    **dict.fromkeys(("2013", "1042"), errors.UpstreamRejected),
}
"""Numbers that say for certain that nothing was made; source: the vendor's page of error codes."""
SPECIFIED_BY_NUMBER = (400, 401, 403, 422, 429)
"""HTTP statuses that the number says more about."""


class MiniMax(RestProvider):
    """Accepts any model name: `MiniMax-Hailuo-...` and `T2V-...` are ones of version 1, any other one of version 2."""

    kind = "minimax"
    title = "MiniMax"
    key_variables = ("MINIMAX_API_KEY",)
    key_page = "https://platform.minimax.io/user-center/basic-information/interface-key"
    prices_read = date(2026, 11, 25)
    callbacks = True
    lists_tasks = True
    models = MODELS
    any_model = h3.ANYTHING
    poll_interval_s = 10
    poll_interval_max_s = 20

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`MINIMAX_API_KEY`, of one platform: a key of minimax.io does not work at minimaxi.com, nor the other way
        round."""
        base_url: str = INTERNATIONAL

        @field_validator("base_url")
        @classmethod
        def _without_version(cls, value: str) -> str:
            return re.sub(r"/v[12]$", "", value)

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        async def url(media: Media) -> str:
            return media.url or await task.data_url(media, provider=self.name)

        body = hailuo.body if hailuo.serves(task.model) else h3.body
        return await body(task, url)

    async def submit(self, task: Task) -> Submission:
        is_first = hailuo.serves(task.model)
        path = hailuo.PATH if is_first else h3.PATH
        response = await self.submit_call(task, "POST", path, json=task.prepared)
        ref = self.json("submit", response).get("task_id")
        if not ref:  # with an id, a task was made, whatever the number says
            refusal = self._by_number(*self.read_error(response), response)
            if refusal is not None:
                raise refusal
        ref = self.ref_of("submit", {"id": ref}, response)
        return Submission(ref=ref, raw_status=hailuo.WAITING if is_first else "queued")

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", self.poll_path(task))
        answer = self.json("poll", response)
        if hailuo.serves(task.model):
            return self._first(answer, response)
        job = answer.get("task")
        if not isinstance(job, dict):
            raise self._refused("the answer has no task", response)
        error = job.get("error")
        status, raw = self.status_of(h3.STATUS, job.get("status"), erred=bool(error))
        details = error if isinstance(error, dict) else {"message": error}
        code = _code(str(details.get("code")))
        return self.learned(task, job, status, raw, first=h3.FILE_PATHS, error=details.get("message"), code=code)

    def poll_path(self, task: Task) -> str:
        if hailuo.serves(task.model):
            return hailuo.poll_path(task.ref)
        return f"{h3.QUERY_PATH}/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        if hailuo.serves(task.model):
            return False
        try:
            progress = await self.poll(task)
        except errors.UpstreamGone:
            return True
        if progress.status is not Status.queued:  # DELETE would remove the record of one that has just ended
            return False
        answer = await self.cancel_call("DELETE", f"{h3.PATH}/{segment(task.ref)}")
        if isinstance(answer, bool):  # a task that was there at the poll has been deleted since, not stopped
            return False
        found = object_of(answer)
        return found.get("action") in STOPPED or found.get("status") in STOPPED

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Open the finished file; of version 1 at the address that the vendor names for the next hour."""
        if output.url is not None and output.url.startswith(hailuo.FILE_PATH) and not output.direct:
            output = Output(url=await self._file_url(output.url))
        async with super().fetch(task, output) as download:
            yield download

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        number, seen = map(int, (page or "1 0").split())
        query = f"page_num={number}&page_size={PAGE_TASKS}"
        response = await self.call("list", "GET", f"{h3.QUERY_PATH}?{query}")
        answer = self.json("list", response)
        rows = answer.get("items")
        tasks = listed_tasks(rows)
        if not isinstance(rows, list) or len(tasks) < len(rows):
            # Read as it is, the list would show that there are no further tasks.
            raise self.unreadable("list", "the list of tasks cannot be read", response)
        seen += len(rows)
        is_last = not rows or answer.get("total") == seen  # the vendor may give less than the page asked for
        return tasks, None if is_last else f"{number + 1} {seen}"

    def lists(self, model: str) -> bool:
        return not hailuo.serves(model)

    def capabilities(self, model: str) -> Capabilities | None:
        return self.models.get(model, hailuo.ANYTHING if hailuo.serves(model) else h3.ANYTHING)

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        capabilities_for = hailuo.capabilities_for if hailuo.serves(model) else h3.capabilities_for
        return capabilities_for(model, request)

    # Reading answers of version 1

    def _first(self, answer: dict[str, Any], response: httpx.Response) -> Progress:
        """The state of a task of version 1: its status word first, since one that has failed is an error, too."""
        number, message = self.read_error(response)
        word = answer.get("status")
        if number is not None and str(word).lower() not in hailuo.STATUS:
            raise self._refused(self.scrub(f"{message} ({number})"), response)
        status, raw = self.status_of(hailuo.STATUS, word)
        if status is Status.failed:
            failure = self.failure(raw, message, code=_code(number))
            return Progress(status=status, raw_status=raw, failure=failure)
        if status is not Status.completed:
            return Progress(status=status, raw_status=raw)
        path = hailuo.file_path(answer.get("file_id"))
        if path is None:
            return Progress(status=Status.failed, raw_status=raw, failure=self.no_output(raw, answer))
        return Progress(status=status, raw_status=raw, output=Output(url=path))

    async def _file_url(self, path: str) -> str:
        """The address of a file. Raises `UpstreamGone` with the code `no_output` if the vendor names none."""
        response = await self.call("poll", "GET", path)
        answer = self.json("poll", response)
        file = answer.get("file")
        url = file_url(file.get("download_url")) if isinstance(file, dict) else None
        if url is not None:
            return url
        number, message = self.read_error(response)
        if number is not None:
            raise self._refused(self.scrub(f"{message} ({number})"), response)
        failure = self.no_output("Success", answer)
        raise errors.UpstreamGone(failure.message, provider=self.name, code=failure.code, body=failure.body)

    # Reading errors

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Number, or else type, and message of an error in the envelope of either version; of neither for an answer of
        version 1 that says success."""
        base = object_of(response).get("base_resp")
        if isinstance(base, dict):
            number, message = base.get("status_code"), base.get("status_msg")
            return str(number) if number else None, str(message or "") if number else ""
        code, message = super().read_error(response)
        message = message.strip()
        found = NUMBERED.search(message[-8:])
        return (found[1], message[: -len(found[0])].rstrip()) if found is not None else (code, message)

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False  # the vendor documents no 503

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if verb == "fetch":  # a file's host, which is another
            return error
        status = response.status_code
        number, message = self.read_error(response)
        if verb != "submit" and any(words in message.lower() for words in UNKNOWN_TASK):
            return errors.UpstreamGone(self.scrub(message), provider=self.name, upstream_status=status, body=error.body)
        specified = self._by_number(number, message, response) if status in SPECIFIED_BY_NUMBER else None
        return specified or error

    def _refused(self, why: str, response: httpx.Response) -> errors.UpstreamError:
        """The error that the 200 of a poll stands for, in words where its number says nothing for certain."""
        error = self._by_number(*self.read_error(response), response)
        if type(error) is errors.UpstreamRejected:
            return errors.UpstreamGone(error.message, provider=self.name, upstream_status=200, body=error.body)
        return error or self.unreadable("poll", why, response)

    def _by_number(self, number: str | None, message: str, response: httpx.Response) -> errors.UpstreamError | None:
        kind = NUMBERS.get(number or "")
        if kind is None:
            return None
        text = self.scrub(message) or f"{self.name} answered {number}"
        if number in NOT_OURS:
            other = CHINA if self.config.base_url == INTERNATIONAL else INTERNATIONAL
            text = f"{self.name} refuses the gateway's credentials ({number}: {text}); a key of the other platform "
            text += f"needs its base URL, {other}"
        elif number in ACCOUNT_LIMITS:
            text = f"{self.name} has reached a limit of its account ({number})"
        elif number == NO_CREDIT:
            text = f"the gateway's account at {self.name} has no credit left"
        elif kind is errors.UpstreamRateLimited:
            text = f"{self.name} is busy ({number})"
        return kind(
            text,
            provider=self.name,
            upstream_status=response.status_code,
            body=self.scrub(response.text),
            retry_after_s=retry_after_s(response.headers),
        )


def _code(number: str | None) -> str | None:
    """The gateway's code for the number of a failed task; None: the generic one."""
    return errors.ContentPolicy.default_code if number in CONTENT else None
