"""Rows of the dialect contract suite: one `DialectCase` for each prefix of a dialect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.video import VideoRequest

PICTURE_URL = "https://example.com/boat.png"


@dataclass(frozen=True)
class Inputs:
    """Fields of one dialect for the tests of inputs, which every dialect reads alike; None: it has no such field."""

    prompt: str
    structured: tuple[str, Any]
    """A field that is an object, a list or a medium, with a value."""
    keyed: dict[str, str]
    """The same or another such field as form fields with keys in brackets."""
    read: Callable[[VideoRequest], bool]
    """True for a request that has the value of `structured` and `keyed`."""
    picture: Callable[[Any], dict[str, Any]] | None = None
    """Body fields with this value as the first frame."""
    picture_param: str = ""
    """Name of that field in errors."""
    picture_part: str = ""
    """Name of that field in a form."""


def has_picture(request: VideoRequest) -> bool:
    """True for a request whose first frame is at `PICTURE_URL`."""
    return request.first_frame is not None and request.first_frame.url == PICTURE_URL


@dataclass(frozen=True)
class DialectCase:
    """Requests and responses of one dialect; `{id}` in a path stands for the video."""

    create: str
    body: Mapping[str, Any]
    get: str
    id_of: Callable[[Any], str]
    """Reads the id out of the response to a create, and of a read."""
    message_of: Callable[[Any], str]
    """Reads the message out of an error, whose whole shape it checks."""
    bad_body: Mapping[str, Any]
    """Valid JSON that the dialect refuses."""
    inputs: Inputs | None = None
    """Required of every dialect by `tests/contract/test_parts.py`."""
    created: int = 202
    key_headers: Callable[[str], dict[str, str]] = lambda key: {"authorization": f"Bearer {key}"}


def openai_message(body: Any) -> str:
    """Reads the message out of an error in OpenAI's shape."""
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return str(body["error"]["message"])


def flat_message(*names: str) -> Callable[[Any], str]:
    """Reads `message` out of a flat error with exactly these keys."""

    def message_of(body: Any) -> str:
        assert list(body) == list(names)
        return str(body["message"])

    return message_of


def vendor_case(create: str, message_of: Callable[[Any], str], **differing: Any) -> DialectCase:
    """A case of another vendor, with what differs from the most common form."""
    case = DialectCase(
        create=create,
        body={"prompt": "a paper boat", "model": "sandbox/testcard"},
        get=f"{create}/{{id}}",
        id_of=lambda body: str(body["id"]),
        message_of=message_of,
        bad_body={"prompt": "", "model": "sandbox/testcard"},
        created=200,
    )
    return replace(case, **differing)
