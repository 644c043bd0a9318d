"""Multipart bodies of known length, whose files are streamed."""

from collections.abc import AsyncIterator
from secrets import token_hex

from app.media.uploads import Upload


class Form:
    """Multipart body of known length; files are streamed in chunks."""

    def __init__(self, parts: list[tuple[str, str | Upload]]) -> None:
        boundary = token_hex(16)
        self._parts = [(_part_head(boundary, name, value), value) for name, value in parts]
        self._end = f"--{boundary}--\r\n".encode()
        length = len(self._end)
        for head, value in self._parts:
            length += len(head) + (value.size if isinstance(value, Upload) else len(value.encode())) + 2
        self.headers = {"content-type": f"multipart/form-data; boundary={boundary}", "content-length": str(length)}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for head, value in self._parts:
            yield head
            if isinstance(value, Upload):
                async for chunk in value.chunks:
                    yield chunk
            else:
                yield value.encode()
            yield b"\r\n"
        yield self._end


def _part_head(boundary: str, name: str, value: str | Upload) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
    if isinstance(value, Upload):
        head += f'; filename="{_quoted(value.filename)}"\r\nContent-Type: {value.content_type}'
    return f"{head}\r\n\r\n".encode()


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
