"""Signatures of webhooks, against vectors of other implementations."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from app.dialects import lumen
from app.webhooks import signing

pytestmark = pytest.mark.anyio


OPENAIS_BODY = (
    '{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": '
    '"response.completed", "data": {"id": "resp_123"}}'
)


@pytest.mark.parametrize(
    ("secret", "webhook_id", "timestamp", "body", "signature"),
    [
        (
            "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
            "wh_685c059ae39c8190af8c71ed1022a24d",
            1750861210,
            OPENAIS_BODY,
            "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
        ),
        (
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "msg_1",
            1758941485,
            '{"id":"evt_1","object":"event","created_at":1758941485,"type":"video.completed","data":{"id":"video_1"}}',
            "v1,GDCsfAPEVAC7sYiwUiXdp2Hnldoha/yoF6Oc7wAUWBg=",
        ),
    ],
    ids=["OpenAI's", "ours"],
)
def test_signatures_match_the_published_vectors(
    secret: str, webhook_id: str, timestamp: int, body: str, signature: str
) -> None:
    assert signing.sign(secret, webhook_id, timestamp, body.encode()) == signature


def test_the_signature_of_lumen_matches_its_vector() -> None:
    body = b'{"id":"v1a2b3","status":"succeeded","data":[{"url":"https://video.example/a.mp4"}]}'
    expected = "sha256=dd46eb5ff05fb8c55fe4fb86f5ac3f1f8a19dd5a715aee753548d20fa0ffcb22"
    assert lumen.signature("your-secret", body) == expected
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert lumen.WEBHOOK_STYLE.sign(["your-secret"], "wh_1", body, now) == {
        "x-lumen-timestamp": str(int(now.timestamp())),
        "x-lumen-signature": expected,
    }


def test_a_secret_without_prefix_counts_as_it_is() -> None:
    expected = hmac.digest(b"plain secret", b"wh_1.7.{}", hashlib.sha256)
    assert signing.sign("plain secret", "wh_1", 7, b"{}") == f"v1,{base64.b64encode(expected).decode()}"
