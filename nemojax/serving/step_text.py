"""Makes the labels of a step the text of its streams."""

import numpy as np

from nemojax.decoding.state import AnyEmission, BeamEmission
from nemojax.recognition.hypothesis import NOTHING, Update
from nemojax.serving.live_stream import Seat
from nemojax.serving.schedule import Step


def updates_of(step: Step, emission: AnyEmission | None, chunk_frames: int = 0) -> dict[Seat, Update]:
    """Appends the labels of a step to its streams' transcripts, and finishes the text of streams that end with it.

    Args:
      emission: numpy arrays, a row for each slot; None where no stream had a chunk.
      chunk_frames: encoder frames of a chunk; 0 if no stream decides the ends of its utterances.

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
        arrays = emission.labels, emission.frames, emission.log_probs, emission.confidences
        # at once: a call for each row takes longer
        columns = [array[rows, :longest].tolist() for array in arrays if array is not None]
        for index, length, *values in zip(spoken.tolist(), lengths[spoken].tolist(), *columns, strict=True):
            seat = step.stepped[index]
            updates[seat] = seat.hypothesis.append(*(value[:length] for value in values))
    if emission is not None and chunk_frames:
        ended = set(step.ended)  # their last chunk may be a shorter one; `finish` decides its frames
        for seat in step.stepped:
            if not seat.hypothesis.decides_ends or seat in ended:
                continue
            if (decided := seat.hypothesis.decide(chunk_frames)) is not NOTHING:
                updates[seat] = updates.get(seat, NOTHING) + decided
    for seat in step.ended:
        if (rest := seat.hypothesis.finish(seat.samples)) is not NOTHING:
            updates[seat] = updates.get(seat, NOTHING) + rest
    return updates
