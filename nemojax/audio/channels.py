"""From several channels to one: their mean, or chosen channels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nemojax.audio.headers import UnnamedAudioError
from nemojax.errors import ConfigError

AVERAGE, EACH = "average", "each"
WINDOW_S = 0.02
MEMORY_S = 0.3  # the time in which the energies of earlier windows fall to 1/e
# The energy of the mean over that of channels without any relation: below the first, channels cancel each other; above
# the second, no longer.
CANCELED, RESTORED = 0.25, 0.5
OPPOSITE = 0.01  # the same for a single window: one channel is another one with its sign changed
NOTED_WINDOWS = 5  # a single window in which channels cancel each other by chance is not worth a note
LOUDER = 4.0  # another channel is taken if its energy is this many times that of the one taken before

Channel = int | str | Sequence[int] | None


def check_channel(channel: Any) -> Channel:
    """Returns a choice of channels, as NeMo's `channel_selector` has it. Raises UnnamedAudioError.

    None is the mean of all channels, unless they cancel each other; "average" is the mean in any case; an index from 0
    on is one channel; several indices are the mean of these channels.
    """
    if channel is None or (isinstance(channel, str) and channel == AVERAGE):
        return channel
    one = isinstance(channel, int | np.integer)
    try:
        indices = [channel] if one else list(channel)
    except TypeError:
        indices = []
    if isinstance(channel, str) or not indices or not all(_is_index(index) for index in indices):
        raise UnnamedAudioError(
            f"{str(channel)[:60]!r} does not choose channels: write an index from 0 on, several, or {AVERAGE!r}"
        )
    return int(indices[0]) if one else tuple(int(index) for index in indices)


def parse_channel(text: str | None) -> Channel:
    """Reads a choice of channels from a command: "1", "0,1", "average" or "each". Raises ConfigError."""
    if text is None or text in (AVERAGE, EACH):
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise ConfigError(f"--channel is an index from 0 on, several such as 0,1, average or each; not {text[:60]!r}")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def _is_index(index: Any) -> bool:
    return isinstance(index, int | np.integer) and not isinstance(index, bool) and int(index) >= 0


class Mixer:
    """Reduces the channels of a recording to one, block by block. The result does not depend on the blocks.

    Without a choice, it is the mean of all channels. While they cancel each other in it, it is the loudest of them;
    the energies of windows of 20 ms decide.

    Attributes:
      notes: short phrases on what was done.
    """

    def __init__(self, channels: int, rate_hz: int, channel: Channel = None):
        """Raises UnnamedAudioError for a channel that the recording does not have."""
        self.notes: list[str] = []
        chosen = [channel] if isinstance(channel, int) else [] if isinstance(channel, str) else list(channel or [])
        if missing := [index for index in chosen if index >= channels]:
            raise UnnamedAudioError(f"it has no channel {missing[0]}: its channels are 0 to {channels - 1}")
        self._chosen = chosen or list(range(channels))
        self._watched = channels > 1 and channel is None
        if chosen and channels > 1:
            names = ", ".join(map(str, chosen))
            self.notes.append(f"channel{'s' * (len(chosen) > 1)} {names} of {channels}")
        elif channels > 1:
            self.notes.append(f"mixed down from {channels} channels")
        self._window = max(round(WINDOW_S * rate_hz), 1)
        self._decay = math.exp(-WINDOW_S / MEMORY_S)
        self._pending = np.zeros((0, channels), np.float32)
        self._energies, self._mixed_energy = np.zeros(channels), 0.0
        self._taken: int | None = None  # the channel that stands for the mean
        self._taken_windows = [0] * channels
        self._weights: np.ndarray | None = None  # at the end of the last window

    def mix(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Returns the samples, float32 [N], of all whole windows so far; of all frames if it is the `last` block."""
        if not self._watched:
            return block[:, self._chosen[0]] if len(self._chosen) == 1 else block[:, self._chosen].mean(axis=1)
        self._pending = np.concatenate([self._pending, block])
        whole = len(self._pending) if last else len(self._pending) // self._window * self._window
        ready, self._pending = self._pending[:whole], self._pending[whole:]
        windows = [self._mix_window(ready[begin : begin + self._window]) for begin in range(0, whole, self._window)]
        return np.concatenate(windows) if windows else np.zeros(0, np.float32)

    def _mix_window(self, window: np.ndarray) -> np.ndarray:
        mean = window.mean(axis=1)
        energies = np.einsum("nc,nc->c", window, window, dtype=np.float64)
        mixed_energy = float(np.dot(mean, mean))
        opposite = mixed_energy < OPPOSITE * energies.sum() / len(energies) ** 2
        self._energies = self._decay * self._energies + energies
        self._mixed_energy = self._decay * self._mixed_energy + mixed_energy
        unrelated = self._energies.sum() / len(energies) ** 2
        loudest = int(self._energies.argmax())
        if opposite or self._mixed_energy < (CANCELED if self._taken is None else RESTORED) * unrelated:
            if self._taken is None or self._energies[loudest] > LOUDER * self._energies[self._taken]:
                self._taken = loudest
            self._taken_windows[self._taken] += 1
            if self._taken_windows[self._taken] == NOTED_WINDOWS:
                self.notes.append(f"its channels cancel each other in their mean: channel {self._taken} is taken there")
        else:
            self._taken = None
        weights = np.full(len(self._energies), 1 / len(self._energies), np.float32)
        if self._taken is not None:
            weights = np.eye(len(weights), dtype=np.float32)[self._taken]
        before, self._weights = weights if self._weights is None else self._weights, weights
        if (before == weights).all():
            return mean if self._taken is None else window[:, self._taken]
        fade = np.linspace(0, 1, len(window), dtype=np.float32)[:, None]
        faded: np.ndarray = (window * (before + fade * (weights - before))).sum(axis=1)
        return faded
