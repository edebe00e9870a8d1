"""What an engine notes of each of its steps, and what it reports of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nemojax.decoding.state import AnyEmission
from nemojax.serving.live_stream import LiveStream
from nemojax.serving.schedule import Step


class Dispatched(NamedTuple):
    """A step that the device has been given, whose labels are not text yet."""

    step: Step
    emission: AnyEmission | None  # on the device; None where no stream had a chunk
    rows: int  # of the batch
    gathered_s: float
    dispatched_s: float

    def moments_s(self, read_s: float, decoded_s: float) -> tuple[float, ...]:
        """Returns the moments of the step's report."""
        return self.step.ready_s, self.step.begun_s, self.gathered_s, self.dispatched_s, read_s, decoded_s


@dataclass(frozen=True)
class StepReport:
    """A step of an engine: its streams, its size, and when its parts were done.

    The moments are those of `time.monotonic`, in seconds, in this order: a step waits for chunks from `ready_s` to
    `begun_s`, gathers them until `gathered_s`, is given to the device until `dispatched_s`, computes until `read_s`,
    when its labels are on the host, and has its text at `decoded_s`.
    """

    streams: Sequence[LiveStream]  # that had a chunk in it
    changed: Sequence[LiveStream]  # that have new text, or other labels, to read
    rows: int  # of the batch
    ready_s: float  # the first chunk arrived, or the step before it began
    begun_s: float
    gathered_s: float
    dispatched_s: float
    read_s: float
    decoded_s: float
