"""Makes the labels of a step the text of its streams."""

import numpy as np

from nemojax.decoding.state import AnyEmission, BeamEmission
from nemojax.recognition.hypothesis import NOTHING, Update
from nemojax.serving.live_stream import Seat
from nemojax.serving.schedule import Step


def updates_of(step: Step, emission: AnyEmission | None) -> dict[Seat, Update]:
    """Appends the labels of a step to its streams' transcripts, and finishes the text of streams that end with it.

    Args:
      emission: numpy arrays, a row for each slot; None where no stream had a chunk.

    Returns:
      What is new, of the streams that have something new.
    """
    updates: dict[Seat, Update] = {}
    if isinstance(emission, BeamEmission):
        for row, seat in zip(step.rows.tolist(), step.stepped, strict=True):
            if (update := seat.hypothesis.extend(emission, row)) is not NOTHING:
                updates[seat] = update
    elif emission is not None:
        lengths = emission.length[step.rows]
        spoken = np.flatnonzero(lengths)
        rows, longest = step.rows[spoken], int(lengths.max(initial=0))
        arrays = emission.labels, emission.frames, emission.log_probs
        columns = [array[rows, :longest].tolist() for array in arrays]  # at once: a call for each row takes longer
        for index, length, *values in zip(spoken.tolist(), lengths[spoken].tolist(), *columns, strict=True):
            seat = step.stepped[index]
            updates[seat] = seat.hypothesis.append(*(value[:length] for value in values))
    for seat in step.ended:
        if (rest := seat.hypothesis.finish()) is not NOTHING:
            updates[seat] = updates.get(seat, NOTHING) + rest
    return updates
