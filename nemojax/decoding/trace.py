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
    confidence: Float[Array, "B S W"] | None  # of the label, where the search has a `Confidence`

    @classmethod
    def empty(cls, batch: int, places: int, width: int, has_confidence: bool) -> "Trace":
        """Makes a trace without expansions."""
        shape = batch, places, width
        stay = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), shape)
        zeros = jnp.zeros(shape, jnp.float32)
        return cls(stay, jnp.full(shape, NO_LABEL, jnp.int32), zeros, zeros if has_confidence else None)

    def write(
        self,
        expands: Bool[Array, " B"],
        place: Int[Array, " B"],
        parent: Int[Array, "B W"],
        label: Int[Array, "B W"],
        log_prob: Float[Array, "B W"],
        confidence: Float[Array, "B W"] | None,
    ) -> "Trace":
        """Writes an expansion of the rows that have one."""
        batch, places, _ = self.parent.shape
        place = jnp.where(expands, place, places)  # out of range drops the write
        set_rows = lambda row, value: row.at[jnp.arange(batch, dtype=jnp.int32), place].set(value, mode="drop")
        written: Trace = jax.tree.map(set_rows, self, Trace(parent, label, log_prob, confidence))
        return written

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
        label = jnp.take_along_axis(self.label, end, axis=2)
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
            compact(jnp.take_along_axis(self.log_prob, end, axis=2), 0),
            gained.sum(axis=1, dtype=jnp.int32),
            start[:, 0],
            score,
            total,
            None if self.confidence is None else compact(jnp.take_along_axis(self.confidence, end, axis=2), 0),
        )
