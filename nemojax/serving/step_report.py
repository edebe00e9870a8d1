"""What an engine reports about each of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from nemojax.serving.live_stream import LiveStream


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
