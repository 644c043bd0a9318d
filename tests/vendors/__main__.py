"""`make test-vendors`: drive the vendors' own SDKs against the fakes, and compare what they read with `SDKS`.

Each SDK runs in an environment of its own, made by `uv run --with` from the configured registries, or by npm within one
that has Node; releases younger than a week are left out. A fake listens with TLS where an SDK speaks https only; no SDK
is patched. One that cannot be installed is named as skipped.
"""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from clients.__main__ import DRIVE_S, INSTALL_S, NODE, inherited, npm_install, uv_with
from fakes.recorded import recorded
from fakes.server import KEY, Fake, sample_mp4, serve
from fakes.vertex import key_file, new_key, pem
from starlette.types import Receive, Scope, Send

SCRIPTS = Path(__file__).parent
FAILURE = "The machine broke down"
BYTES = len(sample_mp4())
ACCOUNT = {"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/account.json"}


@dataclass(frozen=True)
class Sdk:
    requirement: str
    """Of a Python package, or of an npm package if the script is a `.mjs` file."""
    script: str
    fake: str
    """Module and class of the fake."""
    reads: dict[str, Any]
    tls: bool = False
    code: str | int | None = None
    """Error code of the task that fails."""
    variables: dict[str, str] = field(default_factory=dict)
    """Further variables of the environment; `{host}` is the fake's, `{folder}` one with the key files `account.json`,
    of the service account that Vertex AI's fake knows, and `another.json`."""

    @property
    def in_node(self) -> bool:
        return self.script.endswith(".mjs")


SDKS = (
    Sdk(
        "fal-client==1.0.3",
        "fal_client_script.py",
        "fal.FakeFal",
        {
            "events": ["Queued", "InProgress", "Completed"],
            "type": "video/mp4",
            "bytes": BYTES,
            "declared": BYTES,
            "failed": [504, "runner_server_error", FAILURE],
            "cancelled": ["Completed", "client_cancelled", "Request was cancelled"],
            "cancelled twice": [400, None, '{"status":"ALREADY_COMPLETED"}'],
            "unknown task": [404, None, "Request not found"],
            "no prompt": [422, None, recorded("fal", "submit_error_422_input")["detail"]],
            "wrong key": [401, None, recorded("fal", "submit_error_401")["detail"]],
        },
        tls=True,
        code="runner_server_error",
        variables={"FAL_RUN_HOST": "{host}", "FAL_QUEUE_RUN_HOST": "{host}"},
    ),
    Sdk(
        "volcengine-python-sdk[ark]==5.0.54",
        "ark.py",
        "ark.FakeArk",
        {
            "words": ["queued", "running", "succeeded"],
            "shape": ["480p", "9:16", 7],
            "tokens": 108_900,
            "bytes": BYTES,
            "failed": ["failed", "InternalServiceError", FAILURE],
            "after a cancel": ["ArkNotFoundError", "ResourceNotFound", ""],
            "cancelled while it runs": ["ArkConflictError", "InvalidAction.RunningTaskDeletion", ""],
            "no content": ["ArkBadRequestError", "MissingParameter", "content"],
            "unknown field": ["ArkBadRequestError", "InvalidParameter", "seed"],
            "wrong key": ["ArkAuthenticationError", "AuthenticationError", ""],
        },
        code="InternalServiceError",
    ),
    Sdk(
        "dashscope==2.0.2",
        "dashscope_script.py",
        "dashscope.FakeDashScope",
        {
            "older: words": ["PENDING", "RUNNING", "SUCCEEDED"],
            "older: failed": ["FAILED", "InternalError", FAILURE],
            "older: frames of an older model": "PENDING",
            "older: wrong generation": [400, "InvalidParameter"],
            "words": ["PENDING", "RUNNING", "SUCCEEDED"],
            "bytes": BYTES,
            "failed": ["InternalServerError", "InternalError", 200],
            "after a cancel": "CANCELED",
            "cancelled while it runs": ["BadRequestError", "UnsupportedOperation", 400],
            "first frame": "PENDING",
            "wrong generation": ["BadRequestError", "InvalidParameter", 400],
            "unknown model": ["NotFoundError", "ModelNotFound", 404],
            "unknown task": "UNKNOWN",
            "wrong key": ["AuthenticationError", "InvalidApiKey", 401],
        },
        code="InternalError",
    ),
    Sdk(
        "google-genai==2.34.0",
        "genai_veo.py",
        "gemini.FakeVeo",
        {
            "polls": 4,
            "done": [None, True],
            "bytes": BYTES,
            "failed": [True, {"code": 13, "message": FAILURE}],
            "unknown task": ["ClientError", 404, "NOT_FOUND"],
            "wrong key": ["ClientError", 401, "UNAUTHENTICATED"],
        },
        tls=True,
    ),
    Sdk(
        "google-genai==3.6.1",
        "genai_interactions.py",
        "gemini.FakeGemini",
        {
            "words": ["in_progress", "completed"],
            "type": "video/mp4",
            "bytes": BYTES,
            "failed": "failed",
            "cancelled": "cancelled",
            "unknown task": ["NotFoundError", 404],
            "wrong key": ["AuthenticationError", 401],
        },
        tls=True,
    ),
    Sdk(
        "minimax-mcp==0.0.19",
        "minimax_mcp_script.py",
        "minimax.FakeHailuo",
        {
            "created": "Success. Video generation task submitted: Task ID: .... Please use `query_video_generation` "
            "tool to check the status of the task and get the result.",
            "polls": 3,
            "finished": "Success. Video URL: ...",
            "bytes": BYTES,
            "failed": f"Failed to query video generation status: API Error: 1027-{FAILURE} Trace-Id: None",
            "invalid": "Failed to generate video: API Error: 2013-invalid params Trace-Id: None",
            "wrong key": "Failed to generate video: API Error: login fail, please check your API key and API host."
            "Trace-Id: None",
        },
        code=1027,
    ),
    Sdk(
        "replicate==1.0.7",
        "replicate_script.py",
        "replicate.FakeReplicate",
        {
            "words": ["starting", "processing", "succeeded"],
            "bytes": BYTES,
            "failed": ["failed", FAILURE],
            "canceled": "canceled",
            "aborted": ["ValidationError"],
            "unknown": ["ReplicateError", 404],
            "listed": 5,
            "unknown field": ["ReplicateError", 422, "- input: foo is invalid"],
            "wrong key": ["ReplicateError", 401],
        },
    ),
    Sdk(
        "replicate@1.4.0",
        "replicate_script.mjs",
        "replicate.FakeReplicate",
        {
            "words": ["starting", "processing", "succeeded"],
            "bytes": BYTES,
            "failed": ["failed", FAILURE],
            "canceled": "canceled",
            "aborted": "aborted",
            "unknown": 404,
            "listed": 5,
            "unknown field": 422,
            "wrong key": 401,
        },
    ),
    Sdk(
        "runwayml==5.24.0",
        "runway_script.py",
        "runway.FakeRunway",
        {
            "estimated": 60,
            "words": ["PENDING", "RUNNING", "SUCCEEDED"],
            "cost": 60,
            "bytes": BYTES,
            "failed": ["FAILED", "INTERNAL.BAD_OUTPUT.CODE01", FAILURE],
            "after a cancel": ["NotFoundError", 404, {"error": "Task not found"}],
            "cancelled twice": ["NotFoundError", 404, {"error": "Task not found"}],
            "upload": "runway://k1",
            "first frame": "PENDING",
            "unknown field": ["BadRequestError", 400],
            "another version": ["BadRequestError", 400],
            "wrong key": ["AuthenticationError", 401, {"error": "The API key was invalid."}],
        },
        code="INTERNAL.BAD_OUTPUT.CODE01",
    ),
    *(
        Sdk(
            f"google-genai=={version}",
            "genai_vertex_veo.py",
            "vertex.FakeVertexVeo",
            {
                "name": "projects/my-proj/locations/us-central1/publishers/google/models/veo-3.1-lite-generate-001/"
                "operations/op1",
                "polls": 4,
                "done": [None, True],
                "type": "video/mp4",
                "bytes": BYTES,
                "failed": [True, {"code": 13, "message": FAILURE}],
                "first and last frame": [False, None],
                "too short": ["ClientError", 400, "INVALID_ARGUMENT"],
                "unknown task": ["ClientError", 404, "NOT_FOUND"],
                "express mode": BYTES,
                "wrong key": ["ClientError", 401, "UNAUTHENTICATED"],
            },
            variables=ACCOUNT,
        )
        for version in ("2.34.0", "3.6.1")
    ),
    Sdk(
        "google-genai==3.6.1",
        "genai_vertex_interactions.py",
        "vertex.FakeVertex",
        {
            "words": ["in_progress", "completed"],
            "type": "video/mp4",
            "bytes": BYTES,
            "failed": "failed",
            "cancelled": "cancelled",
            "no bucket": ["BadRequestError", 400],
            "unknown task": ["NotFoundError", 404],
            "on a machine": "completed",
            "another account": ["RefreshError", "invalid_grant: Invalid JWT Signature."],
        },
        variables={**ACCOUNT, "ANOTHER_ACCOUNT": "{folder}/another.json", "GCE_METADATA_HOST": "{host}"},
    ),
    Sdk(
        "@openrouter/sdk@1.3.19",
        "openrouter_script.mjs",
        "openrouter.FakeOpenRouter",
        {
            "words": ["pending", "pending", "in_progress", "completed"],
            "cost": 3.2,
            "bytes": BYTES,
            "failed": ["failed", FAILURE],
            "first frame": "pending",
            "reference": "pending",
            "models": 27,
            "durations": [4, 6, 8],
            "price": "0.40",
            "no file yet": ["ConflictResponseError", 409, "Not ready"],
            "of an unfinished one": ["OpenRouterDefaultError", 409],
            "length that no model has": ["BadRequestResponseError", 400],
            "unknown task": ["NotFoundResponseError", 404, "Job not found"],
            "wrong key": ["UnauthorizedResponseError", 401],
        },
    ),
)


class Failing:
    """A fake at which each task fails whose request says so."""

    def __init__(self, fake: Fake, code: str | int | None) -> None:
        self.fake, self.code = fake, code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.fake(scope, receive, send)
        for job in self.fake.jobs.values():
            if job.moving and "a boat that fails" in json.dumps(job.asked):
                self.fake.fail(job.ref, self.code, FAILURE)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """The TLS settings of a server on 127.0.0.1, and the file with the authority to trust."""
    import trustme  # only `make test-vendors` brings it along

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, path


def environment_of(sdk: Sdk, url: str, authority: Path) -> dict[str, str]:
    own = {"URL": url, "KEY": KEY, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    places = {"host": url.partition("//")[2], "folder": str(authority.parent)}
    own |= {name: value.format(**places) for name, value in sdk.variables.items()}
    return {**inherited(os.environ), **own, **({"SSL_CERT_FILE": str(authority)} if sdk.tls else {})}


async def drive(sdk: Sdk, fake: Fake, folder: Path) -> Any:
    """Run the script of an SDK, which is installed, against its fake; returns what it read."""
    context, authority = certificate(folder)
    async with serve(Failing(fake, sdk.code), tls=context if sdk.tls else None) as url:
        key_file(folder, token_uri=f"{url}/token")
        key_file(folder, "another.json", token_uri=f"{url}/token", private_key=pem(new_key()))
        command = [*uv(sdk), "--offline", "node" if sdk.in_node else "python", str(folder / sdk.script)]
        child = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment_of(sdk, url, authority),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DRIVE_S):
                output, errors = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
    if child.returncode:
        raise RuntimeError(errors.decode(errors="replace")[-600:])
    return json.loads(output)


def uv(sdk: Sdk) -> list[str]:
    return uv_with(NODE if sdk.in_node else sdk.requirement)


def install(sdk: Sdk, folder: Path) -> str | None:
    """Make the environment of an SDK, with its script; returns the reason why it cannot be made."""
    shutil.copy(SCRIPTS / sdk.script, folder)  # Node searches for packages beside a script
    command = [*uv(sdk), *([*npm_install(), sdk.requirement] if sdk.in_node else ["python", "--version"])]
    try:
        subprocess.run(
            command, cwd=folder, env=inherited(os.environ), check=True, capture_output=True, timeout=INSTALL_S
        )
    except subprocess.CalledProcessError as error:
        return f"it cannot be installed: {' '.join(error.stderr.decode(errors='replace').split())[-300:]}"
    except subprocess.TimeoutExpired:
        return f"it cannot be installed within {INSTALL_S} s"
    return None


def result_of(sdk: Sdk, folder: Path) -> str:
    module, _, name = sdk.fake.partition(".")
    reason = install(sdk, folder)
    if reason is not None:
        return f"skipped: {reason}"
    fake: Fake = getattr(import_module(f"fakes.{module}"), name)()
    try:
        read = asyncio.run(drive(sdk, fake, folder))
    except Exception as error:  # the other SDKs are tried all the same
        return f"no: {type(error).__name__}: {error}"
    wrong = different(read, sdk.reads)
    return f"no: {'; '.join(wrong)}" if wrong else f"ok, {len(sdk.reads)} readings"


def different(read: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {read.get(name)!r} instead of {expected.get(name)!r}"
        for name in {**expected, **read}
        if read.get(name) != expected.get(name)
    ]


def main(words: list[str]) -> int:
    """Drive the SDKs whose requirements have one of the words, or all; returns the exit code."""
    sdks = [sdk for sdk in SDKS if not words or any(word in sdk.requirement for word in words)]
    if not sdks:
        names = ", ".join(sdk.requirement for sdk in SDKS)
        print(f"no SDK has {' or '.join(words)} in its name; there are: {names}", file=sys.stderr)
        return 2
    lines = []
    with tempfile.TemporaryDirectory(prefix="gateway-vendors-") as folder:
        for sdk in sdks:
            lines.append(f"{sdk.requirement}: {result_of(sdk, Path(folder))}")
            print(lines[-1], flush=True)
    return 1 if any(": no: " in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
