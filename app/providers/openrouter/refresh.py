"""The list of models of one OpenRouter account: that of this release until the vendor's own has been read, which is
done in the background and never waited for."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from app import errors
from app.providers.openrouter.listing import MAX_MODELS, Model, released
from app.telemetry.logs import log

REFRESH_S = 86_400
RETRY_S = 900
"""Seconds until the list is read again, and after a failure."""


class ModelList:
    """The models known now. A model that the vendor no longer lists is not shown, and keeps what was known of it;
    so do at most `MAX_MODELS` that were learned after the release."""

    def __init__(
        self, name: str, read: Callable[[], Awaitable[Mapping[str, Model]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a list; `read` reads the vendor's and raises an `UpstreamError`, `clock` counts seconds."""
        self.models: Mapping[str, Model] = released()
        self.listed: tuple[str, ...] = tuple(self.models)
        self._name, self._read, self._clock = name, read, clock
        self._due = float("-inf")
        self._tried = False
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_first_pending(self) -> bool:
        """True while the first read is under way: a model that is not known now may be at once."""
        return self._reading is not None and not self._tried

    def refresh_if_old(self) -> None:
        """Begin to read the vendor's list if that is due; does nothing outside an event loop."""
        if self._closed or self._reading is not None or self._clock() < self._due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._reading = loop.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            found = await self._read()
        except errors.GatewayError as error:
            self._failed(error.message)
        except Exception as error:  # whatever the answer is, the list of before is used
            self._failed(type(error).__name__)
        else:
            if found:
                self.models, self.listed = self._with(found), tuple(found)
                self._due = self._clock() + REFRESH_S
                log.info("model list read", provider=self._name, models=len(found))
            else:
                self._failed("the list has no model that can be used")
        finally:
            self._reading, self._tried = None, True

    def _with(self, found: Mapping[str, Model]) -> Mapping[str, Model]:
        """The models known now with those of an answer, which may lack some."""
        others = [name for name in self.models if name not in found and name not in released()]
        gone = set(others[:-MAX_MODELS])
        return {name: model for name, model in {**self.models, **found}.items() if name not in gone}

    def _failed(self, why: str) -> None:
        self._due = self._clock() + RETRY_S
        log.warning("model list not read", provider=self._name, reason=why)

    async def close(self) -> None:
        """Stop reading."""
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
