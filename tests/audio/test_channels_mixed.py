"""The mixer against a plain definition of it: one window after the other, every number written out."""

from itertools import pairwise

import numpy as np
import pytest

from nemojax.audio.channels import Mixer
from tests.helpers.sounds import wave

RATE_HZ, WINDOW = 8000, 160  # 20 ms


def plainly_mixed(samples: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns the mix, and the channel that each window takes; -1 for the mean."""
    count = samples.shape[1]
    decay = np.exp(-0.02 / 0.3)
    energies, mixed_energy, taken, before = np.zeros(count), 0.0, -1, None
    pieces, choices = [], []
    for begin in range(0, len(samples), WINDOW):
        window = samples[begin : begin + WINDOW].astype(np.float64)
        now, mean = (window**2).sum(axis=0), window.mean(axis=1)
        energies, mixed_energy = decay * energies + now, decay * mixed_energy + (mean**2).sum()
        opposite = (mean**2).sum() < 0.01 * now.sum() / count**2
        if opposite or mixed_energy < (0.25 if taken < 0 else 0.5) * energies.sum() / count**2:
            if taken < 0 or energies.max() > 4 * energies[taken]:
                taken = int(energies.argmax())
        else:
            taken = -1
        weights = np.full(count, 1 / count) if taken < 0 else np.eye(count)[taken]
        before = weights if before is None else before
        rise = np.linspace(0, 1, len(window))[:, None]
        pieces.append((window * ((1 - rise) * before + rise * weights)).sum(axis=1))
        before = weights
        choices.append(taken)
    return np.concatenate(pieces), choices


def scenes() -> dict[str, np.ndarray]:
    voice, other = wave(RATE_HZ, seed=1), wave(RATE_HZ, seed=2)[::-1]
    pair = lambda *channels: np.stack(channels, axis=1)
    growing = np.linspace(0, 1, RATE_HZ, dtype=np.float32)[:, None]
    return {
        "cancel and restore": np.concatenate(
            [pair(voice, other), pair(voice, -voice), pair(voice, other), pair(voice, voice)]
        ),
        # the louder of three changes by more than a factor of four in energy, and by less
        "another is louder": np.concatenate(
            [pair(voice, -voice, 0 * voice), 3 * pair(0 * voice, voice, -0.9 * voice), pair(voice, -voice, 0 * voice)]
        ),
        "slowly apart": np.concatenate([pair(voice, (1 - 2 * growing[:, 0]) * voice), pair(voice, -0.4 * voice)]),
        "a few windows": np.concatenate(
            [pair(voice, voice)[: 40 * WINDOW], pair(voice, -voice)[: 4 * WINDOW], pair(voice, voice)]
        ),
        "not whole windows": pair(voice, -voice)[: 7 * WINDOW + 33],
        "shorter than a window": pair(voice, -voice)[:50],
    }


@pytest.mark.parametrize("name", scenes())
def test_the_mix_is_as_it_is_defined(name):
    samples = scenes()[name]
    mixer = Mixer(samples.shape[1], RATE_HZ)
    expected, choices = plainly_mixed(samples)
    np.testing.assert_allclose(mixer.mix(samples, last=True), expected, atol=1e-5)
    noted = [channel for channel in range(samples.shape[1]) if choices.count(channel) >= 5]
    notes = [
        f"its channels cancel each other in their mean: channel {channel} is taken there"
        for channel in sorted(noted, key=lambda channel: [i for i, c in enumerate(choices) if c == channel][4])
    ]
    assert mixer.notes == [f"mixed down from {samples.shape[1]} channels", *notes]
    assert len(set(choices)) > 1 or len(samples) < 10 * WINDOW


def test_the_scenes_reach_every_case():
    choices = {name: plainly_mixed(samples)[1] for name, samples in scenes().items()}
    changes = {name: sum(a != b for a, b in pairwise(taken)) for name, taken in choices.items()}
    assert changes["cancel and restore"] == 2 and changes["another is louder"] >= 1 and changes["slowly apart"] >= 1
    assert {0, 1} <= set(choices["another is louder"]) and 1 <= len(choices["a few windows"]) - (
        choices["a few windows"].count(-1)
    ) < 5


def test_windows_are_20_ms_of_any_rate():
    for rate_hz, size in ((8000, 160), (44_100, 882), (11_025, 220), (16_000, 320)):
        mixer = Mixer(2, rate_hz)
        assert len(mixer.mix(np.zeros((size - 1, 2), np.float32))) == 0
        assert len(mixer.mix(np.zeros((size, 2), np.float32))) == size
        assert len(mixer.mix(np.zeros((0, 2), np.float32), last=True)) == size - 1


def test_one_channel_waits_for_no_window():
    block = wave(5)[:, None]
    np.testing.assert_array_equal(Mixer(1, RATE_HZ).mix(block), block[:, 0])
