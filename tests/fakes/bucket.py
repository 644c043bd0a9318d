"""A bucket that several processes share: S3 as moto imitates it, in a process of its own."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from processes import Child, running

NAME = "clips"
SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request"}
"""A signature in the form that moto requires; it is not checked."""


@dataclass(frozen=True)
class Bucket:
    """The server of the bucket, and a client of its contents."""

    child: Child
    """Prints a line for each request once it has been answered."""
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        """For `GATEWAY_STORAGE_URL`."""
        return f"s3://{NAME}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that lead a process to the bucket."""
        return {
            "AWS_ENDPOINT_URL": str(self.client.base_url).rstrip("/"),
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
        }

    async def keys(self) -> list[str]:
        """Of all files."""
        return re.findall(r"<Key>(.+?)</Key>", await self._list("list-type=2"))

    async def unfinished(self) -> list[str]:
        """The keys of multipart uploads that were begun and neither completed nor aborted."""
        return re.findall(r"<Key>(.+?)</Key>", await self._list("uploads"))

    async def _list(self, query: str) -> str:
        response = await self.client.get(f"/{NAME}?{query}")
        assert response.status_code == 200, response.text
        assert "<IsTruncated>false" in response.text
        return response.text


@asynccontextmanager
async def open_bucket(cwd: Path) -> AsyncIterator[Bucket]:
    """An empty bucket, gone afterwards with all that is in it."""
    async with running("-p", "0", cwd=cwd, command=(sys.executable, "-m", "moto.server")) as child:
        url = (await child.line(r"Running on (http://\S+)")).group(1)
        async with httpx.AsyncClient(base_url=url, headers=SIGNED, trust_env=False) as client:
            (await client.put(f"/{NAME}")).raise_for_status()
            yield Bucket(child, client)
