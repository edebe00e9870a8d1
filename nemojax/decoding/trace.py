"""What a beam search writes down at each expansion, and the labels of the hypotheses that remain at the end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.state import BeamEmission

NO_LABEL = -1


class Trace(NamedTuple):
    """Where the hypotheses of a segment come from. Place S is that of an expansion; without one, all stay in place."""

    parent: Int[Array, "B S W"]  # place in the beam before
    label: Int[Array, "B S W"]  # gained at the expansion, or NO_LABEL
    log_prob: Float[Array, "B S W"]  # of the label

    @classmethod
    def empty(cls, batch: int, places: int, width: int) -> "Trace":
        """Makes a trace without expansions."""
        shape = batch, places, width
        stay = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), shape)
        return cls(stay, jnp.full(shape, NO_LABEL, jnp.int32), jnp.zeros(shape, jnp.float32))

    def write(
        self,
        expands: Bool[Array, " B"],
        place: Int[Array, " B"],
        parent: Int[Array, "B W"],
        label: Int[Array, "B W"],
        log_prob: Float[Array, "B W"],
    ) -> "Trace":
        """Writes an expansion of the rows that have one."""
        batch, places, _ = self.parent.shape
        place = jnp.where(expands, place, places)  # out of range drops the write
        set_rows = lambda row, value: row.at[jnp.arange(batch, dtype=jnp.int32), place].set(value, mode="drop")
        return Trace(*map(set_rows, self, (parent, label, log_prob)))

    def follow(self, expansions: int, score: Float[Array, "B W"], total: Float[Array, " B"]) -> BeamEmission:
        """Returns the labels of each hypothesis at the end, and its place in the beam at the start.

        `expansions` is the number of places of a frame.
        """
        batch, places, width = self.parent.shape
        before = lambda later, earlier: jnp.take_along_axis(earlier, later, axis=2)
        # places before each expansion of the hypotheses at the end, [B, S, W]
        start = jax.lax.associative_scan(before, self.parent, reverse=True, axis=1)
        stay = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, 1, width))
        end = jnp.concatenate([start[:, 1:], stay], axis=1)
        label, log_prob = (jnp.take_along_axis(x, end, axis=2) for x in (self.label, self.log_prob))
        frame = jnp.arange(places, dtype=jnp.int32) // expansions

        gained = label != NO_LABEL
        slot = jnp.where(gained, jnp.cumsum(gained, axis=1, dtype=jnp.int32) - 1, places)
        rows = jnp.arange(batch, dtype=jnp.int32)[:, None, None], jnp.arange(width, dtype=jnp.int32)[None, None]

        def compact(values: Array, fill: int) -> Array:
            """Moves the values of labels to the front, [B, W, S]."""
            empty = jnp.full((batch, width, places), fill, values.dtype)
            return empty.at[(*rows, slot)].set(jnp.broadcast_to(values, slot.shape), mode="drop")

        return BeamEmission(
            compact(label, NO_LABEL),
            compact(frame[None, :, None], 0),
            compact(log_prob, 0),
            gained.sum(axis=1, dtype=jnp.int32),
            start[:, 0],
            score,
            total,
        )
