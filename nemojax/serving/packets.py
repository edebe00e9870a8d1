"""Packets of many streams at once: rows of samples are copied together, so that a stream costs little."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nemojax.audio.stream_input import as_rows
from nemojax.serving.live_stream import LiveStream, Server
from nemojax.serving.schedule import Schedule

TOGETHER = 512  # streams whose rows are copied at once: a step that begins waits for them


def push_packets(server: Server, schedule: Schedule, streams: Sequence[LiveStream], samples: Any) -> list[LiveStream]:
    """Takes a packet of each stream; see `Engine.push_nowait`. `schedule` is the server's."""
    rows = as_rows(samples, len(streams))
    for stream in streams:
        stream.check_part(server, rows.shape[1])
    if len(set(map(id, streams))) < len(streams):
        raise ValueError("a stream is given twice; push its packets one after the other")
    left = []
    for begin in range(0, len(streams), TOGETHER):
        left += _push(server, schedule, streams[begin : begin + TOGETHER], rows[begin : begin + TOGETHER])
    return left


def _push(server: Server, schedule: Schedule, streams: Sequence[LiveStream], rows: np.ndarray) -> list[LiveStream]:
    slots = np.array([stream.seat.slot for stream in streams], np.intp)
    has_room = np.array([stream.is_free for stream in streams], bool) & (schedule.waiting_of(slots) < server.backlog)
    together = has_room & np.array([stream.is_direct for stream in streams], bool)
    taken = np.flatnonzero(together)
    packets = rows if len(taken) == len(rows) else rows[taken]  # mostly all: they need no copy
    complete = schedule.push_rows(slots[taken], packets)
    count, now_s = rows.shape[1], time.monotonic()
    for index, chunks in zip(taken.tolist(), complete.tolist(), strict=True):
        streams[index].took(count, now_s, chunks)
    for index in np.flatnonzero(has_room & ~together).tolist():  # each has a resampler of its own
        streams[index].push_nowait(rows[index])
    return [streams[index] for index in np.flatnonzero(~has_room).tolist()]
