import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.audio.channels import Mixer, check_channel, parse_channel
from nemojax.audio.headers import UnnamedAudioError
from nemojax.errors import ConfigError
from tests.helpers.sounds import wave

RATE_HZ = 8000


def mixed(samples: np.ndarray, channel=None, sizes=()) -> np.ndarray:
    mixer, pieces = Mixer(samples.shape[1], RATE_HZ, channel), []
    for size in sizes:
        pieces.append(mixer.mix(samples[:size]))
        samples = samples[size:]
    return np.concatenate([*pieces, mixer.mix(samples, last=True)])


def notes(samples: np.ndarray, channel=None) -> list[str]:
    mixer = Mixer(samples.shape[1], RATE_HZ, channel)
    mixer.mix(samples, last=True)
    return mixer.notes


VOICE = wave(RATE_HZ, seed=1)
OTHER = wave(RATE_HZ, seed=2)[::-1]
QUIET = 0.001 * wave(RATE_HZ, seed=3)


def beside(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1)


@pytest.mark.parametrize(
    "samples",
    [
        beside(VOICE, VOICE),
        beside(VOICE, OTHER),
        beside(VOICE, 0 * VOICE),
        beside(0 * VOICE, 0 * VOICE),
        beside(VOICE, -0.3 * VOICE),  # some of it is left
        beside(*[0 * VOICE] * 5, VOICE),
    ],
)
def test_channels_that_do_not_cancel_each_other_are_averaged(samples):
    np.testing.assert_allclose(mixed(samples), samples.mean(axis=1), atol=1e-7)
    assert notes(samples) == [f"mixed down from {samples.shape[1]} channels"]


@pytest.mark.parametrize(
    "samples,taken",
    [
        (beside(VOICE, -VOICE), 0),
        (beside(0.9 * VOICE, -VOICE), 1),
        (beside(VOICE + QUIET, -VOICE), 0),
        (beside(-VOICE, 0.99 * VOICE, 0 * VOICE), 0),
    ],
)
def test_the_loudest_of_channels_that_cancel_each_other_is_taken(samples, taken):
    np.testing.assert_array_equal(mixed(samples), samples[:, taken])
    assert notes(samples)[1:] == [f"its channels cancel each other in their mean: channel {taken} is taken there"]
    np.testing.assert_allclose(mixed(samples, "average"), samples.mean(axis=1), atol=1e-7)  # as it was asked for


def test_the_choice_changes_within_a_recording():
    opposite, apart = beside(VOICE, -VOICE), beside(VOICE, OTHER)
    samples = np.concatenate([apart, opposite, 0 * opposite, np.tile(apart, (4, 1))])
    result = mixed(samples)
    mean = samples.mean(axis=1)
    np.testing.assert_allclose(result[:RATE_HZ], mean[:RATE_HZ], atol=1e-7)
    half = RATE_HZ // 2
    assert np.abs(result[RATE_HZ + half : 2 * RATE_HZ]).mean() > 0.2  # not silence
    np.testing.assert_allclose(result[-half:], mean[-half:], atol=1e-7)


def test_an_inverted_channel_is_noticed_at_once():
    samples = np.concatenate([beside(VOICE, VOICE), beside(VOICE, -VOICE)])
    result = mixed(samples)
    silent = np.abs(result[RATE_HZ : RATE_HZ + RATE_HZ // 10]) < 1e-4
    assert silent.mean() < 0.1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=6), st.sampled_from([None, 0, "average", (0, 1)]))
def test_the_result_does_not_depend_on_the_blocks(sizes, channel):
    samples = np.concatenate([beside(VOICE, OTHER), beside(VOICE, -VOICE)])
    np.testing.assert_array_equal(mixed(samples, channel, sizes), mixed(samples, channel))


def test_chosen_channels():
    samples = wave(500, 4)
    np.testing.assert_array_equal(mixed(samples, 2), samples[:, 2])
    np.testing.assert_allclose(mixed(samples, (1, 3)), samples[:, [1, 3]].mean(axis=1), atol=1e-7)
    assert notes(samples, 2) == ["channel 2 of 4"] and notes(samples, (1, 3)) == ["channels 1, 3 of 4"]
    assert notes(samples[:, :1]) == notes(samples[:, :1], 0) == notes(samples[:, :1], "average") == []
    assert Mixer(4, RATE_HZ, 3) and Mixer(4, RATE_HZ, (0, 3))
    for count, chosen, missing in ((4, 4, 4), (1, (0, 1), 1), (3, (1, 7, 9), 7)):
        with pytest.raises(UnnamedAudioError) as caught:
            Mixer(count, RATE_HZ, chosen)
        assert str(caught.value) == f"it has no channel {missing}: its channels are 0 to {count - 1}"


def test_choices_as_manifests_and_programs_write_them():
    assert [check_channel(channel) for channel in (None, "average", 1, np.int64(1), [0, 2], (1,))] == [
        *(None, "average", 1, 1, (0, 2), (1,))
    ]
    for bad in ("left", "Average", "1", -1, 0.5, [], [0, "a"], [-1], True, {"a": 1}, "x" * 999):
        with pytest.raises(UnnamedAudioError) as error:
            check_channel(bad)
        assert str(error.value) == (
            f"{str(bad)[:60]!r} does not choose channels: write an index from 0 on, several, or 'average'"
        )


def test_choices_on_the_command_line():
    assert [parse_channel(text) for text in (None, "0", "0, 2", "average", "each")] == [
        *(None, 0, (0, 2), "average", "each")
    ]
    assert parse_channel("9999") == 9999
    for bad in ("", "left", "-1", "1.5", "0,", "٣", "99999", "x" * 99):
        with pytest.raises(ConfigError) as caught:
            parse_channel(bad)
        assert str(caught.value) == (
            f"--channel is an index from 0 on, several such as 0,1, average or each; not {bad[:60]!r}"
        )
