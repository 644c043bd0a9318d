"""Errors that the core raises; independent of the dialect, which renders them in its own format.

    GatewayError
    ├── InvalidRequest            400   the caller's parameters
    │   ├── UnsupportedParameter  400   valid, but no candidate provider can express it
    │   ├── PrivateAddress        400   a URL that leads to this machine or a private network
    │   └── UnsupportedMediaType  415
    ├── AuthenticationFailed      401
    ├── InsufficientFunds         402   a balance or a budget does not cover the estimate
    ├── PermissionDenied          403   a valid key without the right to do this
    ├── NotFound                  404
    │   ├── ModelNotFound         404
    │   └── VideoExpired          404
    ├── MethodNotAllowed          405
    ├── RequestTimeout            408   the request was not completed in time
    ├── Conflict                  409
    ├── PayloadTooLarge           413
    ├── RateLimited               429   a limit of the key
    ├── HeadTooLarge              431
    ├── ServiceUnavailable        503   the gateway itself cannot work at present
    └── UpstreamError             502   an upstream's error or missing answer
        ├── UpstreamRejected            the upstream refuses this request: the client must change it
        │   └── ContentPolicy           its moderation refuses this request
        ├── UpstreamAccount             our key or account there is refused
        │   └── UpstreamCredit          our account there has no money
        ├── UpstreamRateLimited         a rate limit; certainly not accepted
        ├── UpstreamUnavailable         cannot answer; on a submit: certainly not accepted
        │   └── UpstreamUnreachable     the connection itself failed
        ├── UpstreamUnknown             a submit with an unknown outcome
        ├── UpstreamGone                404 or 410: the task or file is not there
        └── UpstreamFailed              the generation ended in failure

`code` is stable and for programs; the message is for people and names the next step. Messages never carry upstream
credentials or internal addresses: `Provider.scrub` removes them first.
"""

from math import ceil
from typing import ClassVar


class GatewayError(Exception):
    """Base of all: an HTTP status, an OpenAI error type, a stable code, and whether a retry can help."""

    status_code: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.headers = headers or {}


class InternalError(GatewayError):
    """A fault of the gateway itself; the message gives no internal details."""


class InvalidRequest(GatewayError):
    status_code = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    default_code = "unsupported_parameter"


class PrivateAddress(InvalidRequest):
    default_code = "private_address"

    def __init__(self, param: str) -> None:
        message = "the address is private; the operator of this gateway can allow it with GATEWAY_ALLOW_NETWORKS"
        super().__init__(f"{param}: {message}", param=param)


class UnsupportedMediaType(InvalidRequest):
    status_code = 415
    default_code = "unsupported_media_type"


class AuthenticationFailed(GatewayError):
    status_code = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class InsufficientFunds(GatewayError):
    status_code = 402
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class PermissionDenied(GatewayError):
    status_code = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(GatewayError):
    status_code = 404
    type = "invalid_request_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class VideoExpired(NotFound):
    default_code = "video_expired"


class MethodNotAllowed(GatewayError):
    status_code = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """408. Closes the connection: leftover body bytes must not be parsed as the next request."""

    status_code = 408
    type = "invalid_request_error"
    default_code = "request_timeout"
    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"connection": "close"})


class Conflict(GatewayError):
    """409 with `x-should-retry: false`: OpenAI's SDKs retry a 409 by default, and here no retry can help."""

    status_code = 409
    type = "invalid_request_error"
    default_code = "conflict"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code, param=param, headers={"x-should-retry": "false"})


class PayloadTooLarge(GatewayError):
    status_code = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class RateLimited(GatewayError):
    """429 with `retry-after` in whole seconds and `retry-after-ms`."""

    status_code = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, code: str | None = None) -> None:
        waits = {"retry-after": str(ceil(retry_after_s)), "retry-after-ms": str(ceil(retry_after_s * 1000))}
        super().__init__(message, code=code, headers=waits)


class HeadTooLarge(GatewayError):
    status_code = 431
    type = "invalid_request_error"
    default_code = "request_head_too_large"


class ServiceUnavailable(GatewayError):
    """503 with `retry-after`: the database is unavailable, or the gateway is shutting down."""

    status_code = 503
    default_code = "service_unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        headers = {"retry-after": str(retry_after_s), "retry-after-ms": str(retry_after_s * 1000)}
        super().__init__(message, headers=headers)


class UpstreamError(GatewayError):
    """An error of an upstream, with the provider's name, the HTTP status and a trimmed piece of the body."""

    status_code = 502
    type = "upstream_error"
    default_code = "upstream_error"
    next_candidate: ClassVar[bool] = False
    """True if the cause lies with the provider or our account there, so that another provider may succeed."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        upstream_status: int | None = None,
        body: str | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.provider = provider
        self.upstream_status = upstream_status
        self.body = body
        self.retry_after_s = retry_after_s


class UpstreamRejected(UpstreamError):
    status_code = 400
    type = "invalid_request_error"
    default_code = "upstream_rejected"


class ContentPolicy(UpstreamRejected):
    default_code = "content_policy_violation"


class UpstreamAccount(UpstreamError):
    default_code = "upstream_account_refused"
    next_candidate = True


class UpstreamCredit(UpstreamAccount):
    default_code = "upstream_insufficient_credit"


class UpstreamRateLimited(UpstreamError):
    status_code = 503
    default_code = "upstream_rate_limited"
    retryable = True
    next_candidate = True


class UpstreamUnavailable(UpstreamError):
    status_code = 503
    default_code = "upstream_unavailable"
    retryable = True
    next_candidate = True


class UpstreamUnreachable(UpstreamUnavailable):
    """The connection itself failed, whatever was to be sent over it."""


class UpstreamUnknown(UpstreamError):
    default_code = "upstream_outcome_unknown"


class UpstreamGone(UpstreamError):
    default_code = "upstream_gone"


class UpstreamFailed(UpstreamError):
    default_code = "generation_failed"
