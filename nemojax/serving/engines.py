"""Live streams at several look-aheads on one device."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from nemojax.recognition.recognizer import Recognizer
from nemojax.serving.engine import Engine


@asynccontextmanager
async def open_engines(
    recognizer: Recognizer, lookaheads: Sequence[int], **settings: Any
) -> AsyncIterator[dict[int, Engine]]:
    """Runs an engine for each look-ahead. They share the recognizer's weights; each has its own slots and steps.

        async with open_engines(recognizer, (1, 6), slots=(64,)) as engines:
            stream = engines[6].open()

    Args:
      settings: those of `Engine`.
    """
    async with AsyncExitStack() as stack:
        engines = (Engine(recognizer, lookahead, **settings) for lookahead in dict.fromkeys(lookaheads))
        yield {engine.lookahead: await stack.enter_async_context(engine) for engine in engines}
