import dataclasses
import json

import pytest
import yaml

from convert.errors import ConvertError
from convert.nemo import recipe
from convert.nemo.recipe import dump, to_settings
from convert.nemo.settings import parse, to_config
from nemojax.config import PRESETS, JointConfig, PredictionConfig
from tests.convert.nemo.release import RELEASE
from tests.convert.samples import CONFIG, FAMILY, UNUSUAL, settings
from tests.helpers.messages import whole

# with what only NeMo can express
ALL_UNUSUAL = dataclasses.replace(
    UNUSUAL,
    features=dataclasses.replace(UNUSUAL.features, sample_rate_hz=8000, log_guard=0.125),
    prediction=PredictionConfig(width=20, layers=3, dropout=0.35),
    joint=JointConfig(width=28, dropout=0.45),
)


@pytest.mark.parametrize("config", [*PRESETS.values(), CONFIG, FAMILY, ALL_UNUSUAL])
def test_round_trip(config):
    texts = [f"piece{i}" for i in range(config.vocabulary)]
    made = to_settings(config, texts, {"model_path": "0_tokenizer.model"})
    again = parse(dump(made))
    assert again == made and to_config(again, config.vocabulary) == config


def leaves(settings: dict, path: str = "") -> dict:
    """Values by their full names."""
    found = {}
    for key, value in settings.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def test_the_recipe_of_the_release():
    """What both have is equal, but for files, and for how NeMo computes its loss, which takes memory."""
    texts = [f"piece{i}" for i in range(1024)]
    made = leaves(to_settings(PRESETS["0.6b"], texts, {"model_path": "0_tokenizer.model", "vocab_path": "v.txt"}))
    released = leaves(RELEASE)
    assert {name: (made[name], value) for name, value in released.items() if made.get(name, value) != value} == {
        "validation_ds.manifest_filepath": (None, "???"),
        "tokenizer.dir": (None, "/data/tokenizers/spe_bpe_v1024"),
        "tokenizer.model_path": ("nemo:0_tokenizer.model", "nemo:2afb0d4e_tokenizer.model"),
        "tokenizer.vocab_path": ("nemo:v.txt", "nemo:9dfe1c2b_vocab.txt"),
        "loss.warprnnt_numba_kwargs.fastemit_lambda": (0.005, "5e-3"),
        "joint.fuse_loss_wer": (False, True),
        "joint.fused_batch_size": (None, 4),
    }
    assert {name: value for name, value in made.items() if name not in released} == {
        "validation_ds.sample_rate": 16_000,
        "validation_ds.shuffle": False,
        "validation_ds.use_start_end_token": False,
        "spec_augment.freq_width": 27,
        "spec_augment.time_width": 0.05,
        "preprocessor.preemph": 0.97,
        "preprocessor.log_zero_guard_value": 2.0**-24,
        "joint.vocabulary": texts,
        "labels": texts,
    }


def test_files_that_an_archive_does_not_hold():
    decoding = {
        "strategy": "maes",
        "greedy": {"ngram_lm_model": "a", "max_symbols": 10, "boosting_tree": {"model_path": "b", "alpha": 1.0}},
        "beam": {"language_model": "c", "boosting_tree": {"key_phrases_file": "d", "key_phrases_list": ["e"]}},
    }
    recipe.remove_files(decoding)
    assert decoding == {
        "strategy": "maes",
        "greedy": {"ngram_lm_model": None, "max_symbols": 10, "boosting_tree": {"model_path": None, "alpha": 1.0}},
        "beam": {"language_model": None, "boosting_tree": {"key_phrases_file": None, "key_phrases_list": ["e"]}},
    }


def test_windows_that_seconds_can_not_express():
    """NeMo truncates seconds x rate, which for these lengths is a sample too short."""
    lengths = [n for n in range(320, 1024) if int(n / 16_000 * 16_000) != n]
    assert recipe._duration("size", 400, 16_000) == {"window_size": 0.025}
    expected = {"window_size": None, "n_window_size": lengths[0]}
    assert recipe._duration("size", lengths[0], 16_000) == expected
    for length in lengths[:3]:
        features = dataclasses.replace(CONFIG.features, window_samples=length, fft_samples=1024)
        config = dataclasses.replace(CONFIG, features=features)
        assert to_config(settings(config), config.vocabulary) == config


def test_strings_that_look_like_other_types_stay_strings():
    pieces = ["y", "n", "No", "true", "1e3", "1_0", "12:30", "~", "null", "0x1F", ".5", "-", "▁the", "é", "'", '"', "#"]
    assert yaml.safe_load(dump({"labels": pieces}))["labels"] == pieces
    assert json.loads(json.dumps(pieces)) == pieces
    # some YAML readers parse these as other types without quotes
    for text in ("y", "Y", "n", "N", "1e3", "1_0", ".5", "-"):
        assert f"- '{text}'\n" in dump({"labels": [text]}).decode()


def test_a_model_that_nemo_can_not_express():
    encoder = dataclasses.replace(CONFIG.encoder, feedforward_width=70)
    with pytest.raises(
        ConvertError, match=whole("NeMo can't express a feed-forward width that is not a multiple of 32")
    ):
        settings(dataclasses.replace(CONFIG, encoder=encoder))
