"""Changed videos that a stream has not read yet: ids in a bounded set, so that a slow reader costs little memory."""

import asyncio

MAX_PENDING = 1_000
"""Ids that are kept for a stream; beyond, its client has to read its list again."""


class Changes:
    """The ids of the videos that have changed since a stream last took them."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        """Set by every change, and whenever the stream should look whether it may go on."""
        self.missed = False
        """True when changes may have been missed: the stream has to read by time."""
        self.too_many = False
        """True when ids were dropped."""
        self._pending: dict[str, bool] = {}
        """True for a video of which only the progress has changed."""

    def add(self, video_id: str, *, only_progress: bool) -> None:
        """Note a change. When there are too many, those of progress are dropped first: it changes again."""
        if len(self._pending) >= MAX_PENDING and video_id not in self._pending:
            if only_progress:
                return
            self._pending = {waiting: False for waiting, progress in self._pending.items() if not progress}
            if len(self._pending) >= MAX_PENDING:
                self.too_many = True
                self._pending.clear()
        self._pending[video_id] = only_progress and self._pending.get(video_id, True)
        self.woken.set()

    def take(self) -> tuple[list[str], list[str]]:
        """Take all ids: those of videos with a changed status, or new or deleted ones, and those with changed progress
        only."""
        taken, self._pending = self._pending, {}
        changed = [video_id for video_id, progress in taken.items() if not progress]
        return changed, [video_id for video_id, progress in taken.items() if progress]
