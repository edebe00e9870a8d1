"""Free slots go to streams in the order in which they wait, and none is lost."""

import asyncio

import pytest

from nemojax.serving.slots import Slots


def test_low_slots_come_first():
    slots = Slots(3)
    assert [slots.take() for _ in range(4)] == [0, 1, 2, None]
    slots.give_back(2)
    slots.give_back(0)
    assert slots.take() == 0


def test_slots_go_to_those_who_have_waited_longest():
    async def run():
        slots = Slots(1)
        assert await slots.wait(0) == 0 and await slots.wait(0.001) is None
        first, canceled, second = (asyncio.create_task(slots.wait(60)) for _ in range(3))
        await asyncio.sleep(0)
        canceled.cancel()
        await asyncio.sleep(0)
        slots.give_back(0)
        assert slots.take() is None  # it is promised
        assert await first == 0 and not second.done()
        slots.give_back(0)
        assert await second == 0
        slots.give_back(0)
        assert slots.take() == 0

    asyncio.run(run())


def test_a_slot_that_comes_too_late_is_free():
    async def run():
        slots = Slots(1)
        slots.take()
        waiting = asyncio.create_task(slots.wait(60))
        await asyncio.sleep(0)
        slots.give_back(0)
        waiting.cancel()  # it has its slot, and has not seen it
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.take() == 0

    asyncio.run(run())


def test_waits_end_with_the_engine():
    async def run():
        slots = Slots(1)
        slots.take()
        waiting = asyncio.create_task(slots.wait(60))
        await asyncio.sleep(0)
        slots.close(KeyError("stopped"))
        with pytest.raises(KeyError, match="stopped"):
            await waiting

    asyncio.run(run())
