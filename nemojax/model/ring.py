"""Rings: the newest frames of every stream, in memory that is written in place.

Frame f of a stream lies in slot f mod S of its row. A step writes its new frames and nothing else, so a donated ring
is never copied, and a step's cost does not depend on what is kept. A new stream begins at frame 0: the frames of an
earlier stream in its row stay where they are until they are overwritten, and are not valid. So every value that is
stored is finite, and an invalid frame of weight zero adds nothing.

A ring of C + N slots holds the C frames of context of every frame in a chunk of N: a layer writes the chunk first, and
then reads.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

INT8_MAX = 127
# Frames of bfloat16 as their bits. XLA on a CPU writes into a bfloat16 array by way of a float32 copy of the whole.
BITS = jnp.uint16
Tree = TypeVar("Tree")


class Ring(NamedTuple):
    """The frames in S slots, one vector of width K for each of H heads.

    Frames of int8 are multiples of `scale`, one for each frame and head; frames of another type have no scale. Frames
    of type `BITS` are the bits of bfloat16. T new frames, which are not in a ring yet, have the same form, with S = T.
    """

    frames: Array  # [B, H, S, K]; frames of a head lie side by side, as products of batches need them
    scale: Float[Array, "B H S"] | None = None

    @property
    def slots(self) -> int:
        """The number of frames, S."""
        return int(self.frames.shape[2])

    @property
    def is_cast(self) -> bool:
        """Whether the frames are numbers only in another type: those of int8, and bits."""
        return self.scale is not None or self.frames.dtype == BITS

    @classmethod
    def zeros(cls, batch: int, heads: int, slots: int, width: int, dtype: DTypeLike) -> "Ring":
        """Returns a ring of zeros."""
        scale = jnp.zeros((batch, heads, slots), jnp.float32) if jnp.dtype(dtype) == jnp.int8 else None
        return cls(jnp.zeros((batch, heads, slots, width), dtype), scale)

    def stored(self, frames: Float[Array, "B H T K"]) -> "Ring":
        """Returns new frames in the type of this ring; zero where they are not finite."""
        frames = jnp.where(jnp.isfinite(frames), frames, 0.0)
        if self.scale is None:
            dtype = self.frames.dtype
            if dtype == BITS:
                return Ring(jax.lax.bitcast_convert_type(frames.astype(jnp.bfloat16), BITS))
            return Ring(frames.astype(dtype))
        scale = jnp.abs(frames).max(-1) / INT8_MAX
        multiples = jnp.round(frames / jnp.where(scale > 0, scale, 1.0)[..., None])
        return Ring(multiples.astype(jnp.int8), scale)

    def values(self, dtype: DTypeLike) -> Float[Array, "B H S K"]:
        """Returns the frames as numbers: those of int8 in the type `dtype`, others in their own."""
        if self.scale is None:
            return from_bits(self.frames)
        return (self.frames.astype(jnp.float32) * self.scale[..., None]).astype(dtype)

    def cast(self, dtype: DTypeLike) -> Float[Array, "B H S K"]:
        """Returns the frames before their scale as numbers: those of int8 in the type `dtype`, others in their own."""
        return from_bits(self.frames) if self.scale is None else self.frames.astype(dtype)

    def write(self, new: "Ring", length: Int[Array, " B"], mask: Bool[Array, "B T"]) -> "Ring":
        """Writes new frames, of the type of this ring, after the first `length` ones.

        Frames outside `mask` are not written; the valid ones come first. Of more frames than slots the newest are.
        """
        index = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
        newest = index >= mask.sum(1, dtype=jnp.int32)[:, None] - self.slots
        # a slot past the end is dropped; they differ, as all indices have to
        slot = jnp.where(mask & newest, (length[:, None] + index) % self.slots, self.slots + index)
        rows = jnp.arange(mask.shape[0], dtype=jnp.int32)[:, None, None]

        def put(ring: Array, frames: Array) -> Array:
            heads = jnp.arange(ring.shape[1], dtype=jnp.int32)[None, :, None]
            return ring.at[rows, heads, slot[:, None]].set(frames, mode="drop", unique_indices=True)

        written: Ring = jax.tree.map(put, self, new)
        return written

    def read(self, length: Int[Array, " B"], count: int) -> "Ring":
        """Returns the `count` frames before frame `length` in their order; zeros before frame 0."""
        frame = length[:, None] + jnp.arange(-count, 0, dtype=jnp.int32)[None]

        def take(ring: Array) -> Array:
            index, valid = (
                x[:, None].reshape(-1, 1, count, *[1] * (ring.ndim - 3)) for x in (frame % self.slots, frame >= 0)
            )
            return jnp.where(valid, jnp.take_along_axis(ring, index, axis=2), jnp.zeros((), ring.dtype))

        taken: Ring = jax.tree.map(take, self)
        return taken

    def frame_of_slot(self, end: Int[Array, " B"]) -> Int[Array, "B S"]:
        """Returns which frame each slot holds once frame `end` - 1 is written: the newest ones, negative for none."""
        last = end[:, None] - 1
        return last - (last - jnp.arange(self.slots, dtype=jnp.int32)[None]) % self.slots


def from_bits(frames: Array) -> Array:
    """Returns frames of type `BITS` as bfloat16; others as they are."""
    return jax.lax.bitcast_convert_type(frames, jnp.bfloat16) if frames.dtype == BITS else frames


def append(
    ring: Ring, new: Ring, length: Int[Array, " B"], mask: Bool[Array, "B T"], context: int
) -> tuple[Ring, Ring]:
    """Returns the `context` frames before the new ones, in order, and the ring with the new ones.

    Where the ring has room for both, it is written first, so that XLA has no reason to copy it.
    """
    after = ring.write(new, length, mask)
    source = after if ring.slots >= context + new.slots else ring
    return source.read(length, context), after


def share(tree: Tree, source: Tree) -> Tree:
    """Returns `tree` with the rings of `source`."""
    is_ring = lambda node: isinstance(node, Ring)
    shared: Tree = jax.tree.map(lambda x, y: y if is_ring(x) else x, tree, source, is_leaf=is_ring)
    return shared


def without_slots(tree: Tree, count: int) -> Tree:
    """Returns `tree` with the last `count` slots of every ring left out; for rings that nothing was written to."""
    is_ring = lambda node: isinstance(node, Ring)
    shorter = lambda ring: jax.tree.map(lambda x: x[:, :, : ring.slots - count], ring)
    cut: Tree = jax.tree.map(lambda x: shorter(x) if is_ring(x) else x, tree, is_leaf=is_ring)
    return cut
