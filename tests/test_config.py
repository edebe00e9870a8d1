import dataclasses
import json

import pytest

from nemojax.config import PRESETS, EncoderConfig, ModelConfig, TextConfig
from nemojax.errors import ConfigError

RELEASED = PRESETS["0.6b"]


def test_derived_numbers_of_the_release():
    assert RELEASED.frame_samples == 1280 and RELEASED.frame_ms == 80
    assert RELEASED.history_samples == 1080 and RELEASED.blank == 1024 and RELEASED.labels == 1025
    assert [RELEASED.chunk_ms(r) for r in (0, 1, 6, 13)] == [80, 160, 560, 1120]
    assert RELEASED.features.overlap_samples == 240


@pytest.mark.parametrize("samples,frames", [(0, 0), (159, 0), (160, 1), (320, 2), (1440, 2), (1599, 2), (1600, 3)])
def test_encoder_frames(samples, frames):
    assert RELEASED.encoder_frames(samples) == frames


@pytest.mark.parametrize("preset", PRESETS)
def test_json_there_and_back(preset):
    assert ModelConfig.from_json(PRESETS[preset].to_json()) == PRESETS[preset]


def test_older_checkpoints_have_no_settings_of_text():
    values = json.loads(RELEASED.to_json())
    del values["text"]
    assert ModelConfig.from_json(json.dumps(values)) == RELEASED
    text = ModelConfig.from_json(json.dumps(values | {"text": {"events": ["<EOU>"]}})).text
    assert text == TextConfig(("<EOU>",), False)
    with pytest.raises(ConfigError, match=r"unknown settings: text\.event;"):
        ModelConfig.from_json(json.dumps(values | {"text": {"event": []}}))
    for text in (3, None, [], "x"):
        with pytest.raises(ConfigError, match="text must be an object"):
            ModelConfig.from_json(json.dumps(values | {"text": text}))


@pytest.mark.parametrize("lookahead", [-1, 2, 70, 99])
def test_lookaheads_that_do_not_fit_are_refused(lookahead):
    with pytest.raises(ConfigError, match=r"lookahead -?\d+ does not fit.*\(13, 6, 1, 0\)"):
        RELEASED.chunk_frames(lookahead)


@pytest.mark.parametrize("lookahead", [0, 1, 4, 6, 9, 13, 34, 69])
def test_any_lookahead_that_divides_the_left_context(lookahead):
    assert RELEASED.chunk_frames(lookahead) == lookahead + 1


def edited(**changes):
    values = json.loads(RELEASED.to_json())
    values["encoder"].update(changes)
    return json.dumps(values)


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        (edited(flash=1), r"unknown settings: encoder\.flash"),
        (edited(layers="24"), r"encoder\.layers must be a whole number"),
        (edited(layers=True), r"encoder\.layers must be a whole number"),
        (edited(layers=0), r"encoder\.layers must be at least 1"),
        (edited(heads=7), r"not a multiple of encoder\.heads"),
        (edited(lookaheads=[13, 2]), "lookahead 2 does not fit"),
        (edited(lookaheads=[]), r"encoder\.lookaheads is empty"),
        (edited(lookaheads="13"), r"encoder\.lookaheads must be a list"),
        ("{}", "missing settings: features, encoder"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_json(text)


def test_left_context_is_a_setting():
    encoder = dataclasses.replace(EncoderConfig(), left_context_frames=56, lookaheads=(3, 0, 6, 13))
    assert ModelConfig(encoder=encoder).chunk_frames(3) == 4
