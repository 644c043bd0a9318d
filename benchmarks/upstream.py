"""An upstream that takes every job and never finishes: answers each GET of a video with `in_progress`, `/polls` with
their number, and `/submits` with the time at which each prompt arrived, in seconds since the epoch.

python -m benchmarks.upstream PORT
"""

import asyncio
import json
import re
import sys
import time
from typing import ClassVar, cast

import uvloop


class Upstream(asyncio.Protocol):
    polls = 0
    submits: ClassVar[dict[str, float]] = {}
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one only by its methods

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: (\d+)", head)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, asked: bytes) -> None:
        document: dict[str, object]
        if path == "/polls":
            document = {"polls": Upstream.polls}
        elif path == "/submits":
            document = {"submits": Upstream.submits}
        elif asked:
            Upstream.submits[json.loads(asked)["prompt"]] = time.time()
            document = {"id": f"video_{len(Upstream.submits)}", "object": "video", "status": "queued", "progress": 0}
        else:
            Upstream.polls += 1
            video_id = path.rpartition("/")[2]
            document = {"id": video_id, "object": "video", "status": "in_progress", "progress": 33, "error": None}
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
