"""The slots of an engine: which are free, and who waits for one. Used in one event loop."""

import asyncio
import heapq
from collections import deque
from contextlib import suppress


class Slots:
    """The numbers 0 to `count` - 1, each of which one stream may have. Low ones first, so that batches stay small."""

    def __init__(self, count: int):
        self._free = list(range(count))  # a heap
        self._waiting: deque[asyncio.Future[int]] = deque()

    def take(self) -> int | None:
        """Returns a free slot; None if there is none."""
        return heapq.heappop(self._free) if self._free else None

    async def wait(self, wait_s: float) -> int | None:
        """Returns a slot as soon as one is free, first come, first served; None after `wait_s` seconds."""
        if (slot := self.take()) is not None:
            return slot
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(future)
        except TimeoutError:
            return future.result() if future.done() else None
        except asyncio.CancelledError:
            if future.done() and future.exception() is None:
                self.give_back(future.result())
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(future)

    def close(self, error: Exception) -> None:
        """Ends all waits with an error."""
        while self._waiting:
            self._waiting.popleft().set_exception(error)

    def give_back(self, slot: int) -> None:
        """Frees a slot, or gives it to the one who has waited longest."""
        if self._waiting:
            self._waiting.popleft().set_result(slot)
        else:
            heapq.heappush(self._free, slot)
