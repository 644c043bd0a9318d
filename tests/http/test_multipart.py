"""Multipart bodies made to cost more than they are worth: each is refused, and nothing is kept of it."""

import pytest
from harness import Running

pytestmark = pytest.mark.anyio

BOUNDARY = b"boundary"
PROMPT = b'--boundary\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na boat\r\n'
END = b"--boundary--\r\n"


def part(name: bytes, value: bytes = b"x", *, more: bytes = b"") -> bytes:
    return b'--boundary\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name, more, value)


BOMBS = {
    "a thousand fields": b"".join(part(b"field%d" % n) for n in range(1_001)),
    "a thousand files": b"".join(part(b"input_reference[]", b"x", more=b'; filename="a.png"') for _ in range(1_000)),
    "a list that names its last index": part(b"input_reference[99999]"),
    "a list in a list in a list": part(b"a" + b"[]" * 40),
    "a name of a megabyte": part(b"a" * 2**20),
    "a header of a megabyte": part(b"a", more=b'; filename="%s"' % (b"a" * 2**20)),
    "a thousand headers": part(b"a", more=b"".join(b"\r\nx%d: y" % n for n in range(1_000))),
    "a part of 25 MB": part(b"prompt2", b"a" * 25 * 2**20),
    "no end": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_costly_multipart_body_is_refused(gateway: Running, bomb: str) -> None:
    body = PROMPT + BOMBS[bomb] + (b"" if bomb == "no end" else END)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    answer = await gateway.client.post("/v1/videos", content=body, headers=headers)
    assert answer.status_code == 400, answer.text[:300]
    assert len(answer.content) < 1_000
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
