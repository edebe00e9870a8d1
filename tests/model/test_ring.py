import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.model.ring import BITS, Ring, append, share
from tests.helpers.definitions import normal

SLOTS, CONTEXT = 7, 4


@pytest.fixture(scope="module")
def compiled():
    """The two operations, each compiled once for every number of new frames."""
    push = jax.jit(lambda ring, frames, length, mask: append(ring, ring.stored(frames), length, mask, CONTEXT))
    return push, jax.jit(lambda ring, length: ring.frame_of_slot(length))


def history(frames: list[np.ndarray], end: int, count: int) -> np.ndarray:
    """Returns the `count` frames before `end`, zeros before the first."""
    zero = np.zeros_like(frames[0])
    return np.stack([frames[f] if f >= 0 else zero for f in range(end - count, end)], axis=1)


@pytest.mark.parametrize("heads", [1, 2])
def test_rings_are_lists_of_frames(compiled, heads):
    """Rows that pause, begin anew and wrap around, at segments shorter and longer than the ring."""
    rng = np.random.default_rng(heads)
    rows, width = 3, 2
    ring, length = Ring.zeros(rows, heads, SLOTS, width, jnp.float32), np.zeros(rows, np.int32)
    kept: list[list[np.ndarray]] = [[] for _ in range(rows)]
    for _ in range(60):
        count = int(rng.choice([1, 2, 3, 9]))
        new = rng.standard_normal((rows, heads, count, width)).astype(np.float32)
        active, reset = rng.random(rows) < 0.7, rng.random(rows) < 0.1
        for row in np.flatnonzero(reset):
            kept[row], length[row] = [], 0
        mask = np.broadcast_to(active[:, None], (rows, count))
        before, ring = compiled[0](ring, new, length, mask)
        for row in range(rows):
            if length[row]:
                expected = history(kept[row], len(kept[row]), CONTEXT)
            else:
                expected = np.zeros((heads, CONTEXT, width), np.float32)
            np.testing.assert_array_equal(before.frames[row], expected)
            if active[row]:
                kept[row] += [new[row, :, t] for t in range(count)]
                length[row] += count
        held = np.asarray(compiled[1](ring, length))
        for row, frames in enumerate(kept):
            newest = range(max(0, len(frames) - SLOTS), len(frames))
            assert sorted(f for f in held[row] if f >= 0) == list(newest)
            for slot, frame in enumerate(held[row]):
                if frame >= 0:
                    np.testing.assert_array_equal(ring.frames[row, :, slot], frames[frame])
    assert max(map(len, kept)) > 3 * SLOTS


@pytest.mark.parametrize("count", [1, 3])
def test_a_ring_that_has_wrapped_a_thousand_times(count):
    """Rows join, pause and begin anew at every phase of the ring; each step finds the frames before it."""
    rng = np.random.default_rng(count)
    steps, rows = 1000 * SLOTS // count, 8
    active, reset = rng.random((2, steps, rows)) < np.array([0.8, 0.05])[:, None, None]
    reset[:, 0] = False
    active[:, 0] = True
    number = 1.0 + np.arange(steps * rows * count, dtype=np.float32).reshape(steps, rows, count)

    def step(carry, given):
        ring, length = carry
        new, active, reset = given
        length = jnp.where(reset, 0, length)
        mask = jnp.broadcast_to(active[:, None], new.shape)
        before, ring = append(ring, Ring(new[:, None, :, None]), length, mask, CONTEXT)
        return (ring, length + mask.sum(1, dtype=jnp.int32)), (before.frames[:, 0, :, 0], length)

    start = Ring.zeros(rows, 1, SLOTS, 1, jnp.float32), jnp.zeros(rows, jnp.int32)
    _, (found, length) = jax.jit(lambda start, given: jax.lax.scan(step, start, given))(start, (number, active, reset))
    found, length = np.asarray(found), np.asarray(length)
    for row in range(rows):
        kept = [0.0] * CONTEXT
        for i in range(steps):
            if reset[i, row]:
                kept = [0.0] * CONTEXT
            assert found[i, row].tolist() == kept
            if active[i, row]:
                kept = [*kept, *number[i, row].tolist()][-CONTEXT:]
    assert length[-1, 0] > 999 * SLOTS
    before = np.pad(length, ((1, 0), (0, 0)))[:-1]
    for events in (reset, ~active):
        assert set((before[events] % SLOTS).tolist()) == set(range(SLOTS))


def test_positions_of_a_stream_of_a_year():
    """The slot follows from the position alone: nothing is lost after any number of frames."""
    length = jnp.array([400_000_000, 2**31 - 100], jnp.int32)
    ring, new = Ring.zeros(2, 1, SLOTS, 1, jnp.float32), normal(0, 2, 1, 3, 1)
    after = ring.write(Ring(jnp.asarray(new)), length, jnp.ones((2, 3), bool))
    np.testing.assert_array_equal(after.read(length + 3, 3).frames, new)
    assert sorted(np.asarray(after.frame_of_slot(length + 3))[1]) == [2**31 - 97 - f for f in range(SLOTS, 0, -1)]


def test_frames_outside_the_mask_are_not_written():
    """Also where there are more of them than slots."""
    ring = Ring.zeros(2, 1, SLOTS, 1, jnp.float32)
    mask = jnp.arange(2 * SLOTS)[None] < jnp.array([[2], [0]])
    after = ring.write(Ring(jnp.ones((2, 1, 2 * SLOTS, 1))), jnp.zeros(2, jnp.int32), mask)
    np.testing.assert_array_equal(after.frames[:, 0, :, 0].sum(1), [2, 0])


def test_int8_frames_are_within_half_a_step():
    frames = normal(1, 2, 3, 5, 16) * 10.0 ** np.arange(-2, 3)[:, None]
    frames[0, 0, 0] = 0
    frames[0, 1, 1, 3] = np.nan
    ring = Ring.zeros(2, 3, 5, 16, jnp.int8)
    after = ring.write(ring.stored(jnp.asarray(frames)), jnp.zeros(2, jnp.int32), jnp.ones((2, 5), bool))
    assert after.frames.dtype == jnp.int8 and after.scale.shape == (2, 3, 5)
    frames[0, 1, 1, 3] = 0
    step = np.abs(frames).max(-1, keepdims=True) / 127
    assert (np.abs(after.values(jnp.float32) - frames) <= step / 2 * 1.001).all()
    np.testing.assert_allclose(after.values(jnp.float32), after.cast(jnp.float32) * after.scale[..., None])
    assert after.values(jnp.bfloat16).dtype == jnp.bfloat16
    assert Ring.zeros(2, 3, 5, 4, jnp.bfloat16).stored(jnp.ones((2, 3, 1, 4))).frames.dtype == jnp.bfloat16


def test_bits_are_those_of_bfloat16():
    frames = jnp.asarray(normal(2, 2, 1, 3, 4)).at[0, 0, 0, 0].set(jnp.nan)
    plain, bits = (Ring.zeros(2, 1, SLOTS, 4, dtype) for dtype in (jnp.bfloat16, BITS))
    length, mask = jnp.array([0, 5]), jnp.ones((2, 3), bool)
    plain, bits = (ring.write(ring.stored(frames), length, mask) for ring in (plain, bits))
    assert bits.frames.dtype == BITS and bits.values(jnp.float32).dtype == jnp.bfloat16
    np.testing.assert_array_equal(bits.values(jnp.float32), plain.frames)
    np.testing.assert_array_equal(bits.cast(jnp.float32), plain.frames)
    np.testing.assert_array_equal(bits.read(length, 6).values(jnp.float32), plain.read(length, 6).frames)


@pytest.mark.parametrize("count", [1, 3])
def test_a_ring_with_room_is_written_in_place(count):
    """XLA makes no second ring, and nothing but the write has its shape."""
    ring = Ring.zeros(64, 2, SLOTS, 32, jnp.float32)

    def step(ring, frames, length, mask):
        before, ring = append(ring, ring.stored(frames), length, mask, CONTEXT)
        return ring, before.frames.sum(2)

    mask = jnp.ones((64, count), bool)
    given = ring, jnp.zeros((64, 2, count, 32)), jnp.zeros(64, jnp.int32), mask
    memory = jax.jit(step, donate_argnums=0).lower(*given).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= ring.frames.nbytes
    assert memory.temp_size_in_bytes < ring.frames.nbytes


def test_shared_rings_are_those_of_the_source():
    ring, other = Ring.zeros(1, 1, 2, 1, jnp.float32), Ring.zeros(1, 1, 2, 1, jnp.float32)
    shared = share({"ring": ring, "length": 1}, {"ring": other, "length": 2})
    assert shared["ring"] is other and shared["length"] == 1
