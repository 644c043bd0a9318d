"""Buckets: opened with limited retries, and tested at start.

Endpoint, region, keys and time-outs are read by obstore itself, from the AWS_ variables of the environment. Nothing
here knows about videos; that is in `store.py`.
"""

import asyncio
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.settings import ConfigurationError
from app.telemetry.logs import log

if TYPE_CHECKING:
    from obstore.store import RetryConfig

PATIENT: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
"""With obstore's limit of 30 s for one request (AWS_TIMEOUT), a bucket that does not work is reported within a minute.
obstore's default retries for three minutes."""
IMPATIENT: "RetryConfig" = {"max_retries": 0}
TRY_OUT_S = 10
TRIED = "tried-out"

ADVICE = {
    r"MissingAccessKeyId|MissingSecretAccessKey|/latest/api/token": (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; .env is not read for them"
    ),
    r"BadScheme": "Set AWS_ALLOW_HTTP=true for an endpoint without TLS",
    r"status code: 404": "Create it, or correct GATEWAY_STORAGE_URL or AWS_ENDPOINT_URL",
    r"status code: 40[13]|AccessDenied": (
        "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which need s3:PutObject, s3:GetObject, s3:DeleteObject, "
        "s3:ListBucket and s3:AbortMultipartUpload there"
    ),
    r"redirect without LOCATION|status code: (3\d\d|4(?!08|29)\d\d)": "Check AWS_REGION and AWS_ENDPOINT_URL",
}
"""Next step by error text, for errors that a retry does not fix: the first match. Other errors may be temporary."""


def open_bucket(url: str, retries: "RetryConfig" = PATIENT) -> ObjectStore:
    """Open a bucket, without a request to it. Raises `ConfigurationError`."""
    try:
        # No client options: with any of them given, obstore no longer reads AWS_ALLOW_HTTP and AWS_TIMEOUT.
        return from_url(url, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise _unusable(url, error) from error


async def check_bucket(url: str | None) -> None:
    """Write, delete, list and read a test file. Raises `ConfigurationError` if the URL names a bucket and it refuses.

    A bucket that does not answer is only logged: other work goes on, and video files wait for it.
    """
    if url is None or url.startswith(("file:", "memory:")):
        return
    bucket = open_bucket(url, IMPATIENT)
    try:
        async with asyncio.timeout(TRY_OUT_S):
            await obstore.put_async(bucket, TRIED, b"written and deleted at each start")
            await obstore.delete_async(bucket, TRIED)
            await obstore.list(bucket, TRIED).collect_async()
            with suppress(FileNotFoundError):  # read last, so that no file is left if reading is refused
                await obstore.get_range_async(bucket, TRIED, start=0, length=1)
    except TimeoutError:
        log.warning("bucket unreachable, video files wait", waited_s=TRY_OUT_S)
    except (BaseError, OSError) as error:
        if _advice(error) is not None:
            raise _unusable(url, error) from error
        log.warning("bucket unusable, video files wait", reason=reason_of(error))
    except Exception as error:
        raise _endpoint_error(error) from error


async def try_store(url: str | None, directory: Path) -> None:
    """Write a small file under a new name, read it back and delete it, in the bucket or in the directory, which exists.
    Raises `ConfigurationError` with the reason and the next step."""
    in_bucket = url is not None and not url.startswith("file:")
    name, content = f"{TRIED}-{token_hex(8)}", token_hex(32).encode()
    try:
        store = open_bucket(url, IMPATIENT) if url is not None and in_bucket else LocalStore(directory)
        await obstore.put_async(store, name, content)
        try:
            read = bytes(await (await obstore.get_async(store, name)).bytes_async())
        finally:
            await obstore.delete_async(store, name)
    except (BaseError, OSError, ValueError) as error:
        if in_bucket:
            raise _unusable(str(url), error) from error
        raise ConfigurationError(
            f"{directory} cannot be used: {reason_of(error)}\nGive it to the user that the gateway runs as."
        ) from error
    except Exception as error:
        raise _endpoint_error(error) from error
    if read != content:
        raise ConfigurationError("the store gave back other bytes than were written\nCheck what stands in between.")


def _endpoint_error(error: Exception) -> Exception:
    """The error for a panic of obstore, which an endpoint that is no URL causes; any other is returned as it is."""
    if type(error).__name__ != "RustPanic":
        return error
    return ConfigurationError("AWS_ENDPOINT_URL must be an address such as https://s3.example.com")


def _advice(error: Exception) -> str | None:
    return next((advice for pattern, advice in ADVICE.items() if re.search(pattern, str(error))), None)


def _unusable(url: str, error: Exception) -> ConfigurationError:
    advice = _advice(error) if url.startswith("s3:") else None
    advice = advice or "Check its address and the credentials in the environment"
    return ConfigurationError(f"GATEWAY_STORAGE_URL: the bucket cannot be used: {reason_of(error)}\n{advice}.")


def reason_of(error: Exception) -> str:
    """Code and message of the bucket's own error if there is one, else the first line of `error`."""
    text = str(error)
    code, message = re.search(r"<Code>(.*?)</Code>", text), re.search(r"<Message>(.*?)</Message>", text)
    if code is not None:
        return f"{code[1]}: {message[1]}" if message is not None else code[1]
    return text.partition("\n")[0]
