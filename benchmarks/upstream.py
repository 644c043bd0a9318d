"""An upstream that never finishes: answers each GET of a video with `in_progress`, and `/polls` with their number.

python -m benchmarks.upstream PORT
"""

import asyncio
import json
import sys
from typing import cast

import uvloop


class Upstream(asyncio.Protocol):
    polls = 0
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one only by its methods

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        if path == "/polls":
            document: dict[str, object] = {"polls": Upstream.polls}
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
