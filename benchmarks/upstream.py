"""An upstream that takes every job and never finishes: answers each GET of a video with `in_progress`, `/polls` with
their number, and `/submits` with the number of submits and the time at which each prompt arrived first, in seconds
since the epoch. A submit is answered after DELAY_S seconds.

python -m benchmarks.upstream PORT [DELAY_S]
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
    accepted = 0
    delay_s = 0.0
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
            document = {"submits": Upstream.submits, "accepted": Upstream.accepted}
        elif asked:
            Upstream.submits.setdefault(json.loads(asked)["prompt"], time.time())
            asyncio.get_running_loop().call_later(Upstream.delay_s, self._accept)
            return
        else:
            Upstream.polls += 1
            video_id = path.rpartition("/")[2]
            document = {"id": video_id, "object": "video", "status": "in_progress", "progress": 33, "error": None}
        self._send(document)

    def _accept(self) -> None:
        Upstream.accepted += 1
        self._send({"id": f"video_{Upstream.accepted}", "object": "video", "status": "queued", "progress": 0})

    def _send(self, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main(port: int, delay_s: float = 0.0) -> None:
    Upstream.delay_s = delay_s
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
