"""A bucket as S3 serves it: moto keeps the objects, faults are scripted as with every other fake.

Signatures are not checked, only that there is one and whose key it names.
"""

import re
import secrets
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from moto.moto_server.werkzeug_app import create_backend_app
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from werkzeug.test import Client, TestResponse

from fakes.server import Answer, Fault, Reset

KEY_ID = "AKIAFILMS"
REGION = "eu-west-1"
SIGNED = {"authorization": f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20261121/{REGION}/s3/aws4_request"}
PER_CONNECTION = {"connection", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    verb: str
    key: str
    query: str
    headers: dict[str, str]
    size: int


class S3:
    """One bucket; `script` plays faults for the next calls of a verb, `away` for all calls while it lasts."""

    def __init__(self) -> None:
        self.bucket = f"clips-{secrets.token_hex(4)}"
        self.calls: list[Asked] = []
        self._script: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._away: Fault | None = None
        region = f"<LocationConstraint>{REGION}</LocationConstraint>"
        self._do("PUT", body=f"<CreateBucketConfiguration>{region}</CreateBucketConfiguration>".encode())

    # What a test does

    def environment(self, endpoint: str) -> dict[str, str]:
        """The usual variables."""
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def script(self, verb: str, *faults: Fault) -> None:
        """Play these for the next calls of `verb`, one each."""
        self._script[verb].extend(faults)

    def forget_script(self) -> None:
        self._script.clear()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Every connection dies meanwhile."""
        self._away = Reset(accepted=False)
        try:
            yield
        finally:
            self._away = None

    @property
    def files(self) -> dict[str, str]:
        """Contents of the bucket: key to content type."""
        keys = re.findall("<Key>(.*?)</Key>", self._do("GET", query="list-type=2").text)
        return {key: self._do("HEAD", key).headers["content-type"] for key in keys}

    @property
    def unfinished(self) -> list[str]:
        """The keys of multipart uploads that were begun, and neither completed nor aborted."""
        return re.findall("<Key>(.*?)</Key>", self._do("GET", query="uploads").text)

    def asked(self, *verbs: str) -> list[Asked]:
        return [call for call in self.calls if call.verb in verbs]

    def close(self) -> None:
        """Delete everything: moto keeps objects in temporary files, which it closes then."""
        for key in self.files:
            self._do("DELETE", key)

    # How it runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        path = unquote(request.scope["raw_path"].partition(b"?")[0].decode())
        bucket, _, key = path.removeprefix("/").partition("/")
        query = request.url.query
        call = Asked(_verb(request.method, query), key, query, dict(request.headers), len(body))
        self.calls.append(call)
        fault = self._away or (self._script[call.verb].popleft() if self._script[call.verb] else None)
        fault = fault or self._refusal(call, bucket)
        if fault is None or fault.accepted:
            done = self._do(request.method, key, query, body, call.headers)  # moto knows nothing of concurrency
        if fault is not None:
            await fault.play(scope, receive, send)
            return
        headers = {name: value for name, value in done.headers.items() if name.lower() not in PER_CONNECTION}
        await Response(done.data, done.status_code, headers)(scope, receive, send)

    def _refusal(self, call: Asked, bucket: str) -> Fault | None:
        if f"Credential={KEY_ID}/" not in call.headers.get("authorization", "") + unquote(call.query):
            return refusal(403, "InvalidAccessKeyId", "The key Id you provided does not exist in our records.")
        if bucket != self.bucket:
            return refusal(404, "NoSuchBucket", "The specified bucket does not exist")
        return None

    def _do(
        self, method: str, key: str = "", query: str = "", body: bytes = b"", headers: dict[str, str] | None = None
    ) -> TestResponse:
        return _moto().open(
            f"/{self.bucket}/{key}".rstrip("/"),
            base_url="http://127.0.0.1",
            method=method,
            query_string=query,
            data=body,
            headers={**(headers or SIGNED), "host": "127.0.0.1"},
        )


def refusal(status: int, code: str, message: str) -> Answer:
    """An error in S3's words."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>")


@lru_cache
def _moto() -> Client:
    return Client(create_backend_app("s3"), use_cookies=False)


def _verb(method: str, query: str) -> str:
    parameters = query.replace("=", "&").split("&")
    for parameter, verbs in {
        "uploads": {"POST": "begin"},
        "partNumber": {"PUT": "part"},
        "uploadId": {"POST": "complete", "DELETE": "abort"},
        "list-type": {"GET": "list"},
        "delete": {"POST": "delete"},
    }.items():
        if parameter in parameters:
            return verbs[method]
    return method.lower()
