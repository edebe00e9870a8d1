import dataclasses

import pytest

from convert import nemo
from convert.errors import ConvertError
from convert.nemo.settings import read, to_config
from nemojax.config import PRESETS
from tests.convert.nemo.release import RELEASE, changed
from tests.convert.samples import CONFIG, settings
from tests.helpers.messages import whole


def test_the_release():
    assert to_config(RELEASE, 1024) == PRESETS["0.6b"]


def test_the_familys_114m():
    made = RELEASE
    for path, value in {
        "preprocessor.features": 80,
        "encoder.feat_in": 80,
        "encoder.n_layers": 17,
        "encoder.d_model": 512,
        "encoder.use_bias": True,
        "encoder.xscaling": True,
        "joint.jointnet.encoder_hidden": 512,
        "decoder.prednet.pred_rnn_layers": 1,
        "target": "nemo.collections.asr.models.EncDecHybridRNNTCTCBPEModel",
        "aux_ctc": {"ctc_loss_weight": 0.3, "decoder": {"feat_in": 512, "num_classes": 1024}},
    }.items():
        made = changed(path, value, made)
    assert to_config(made, 1024) == PRESETS["114m"]


@pytest.mark.parametrize(
    "sizes,left,lookaheads",
    [([70, 1], 70, (1,)), ([[70, 1]], 70, (1,)), ([[56, 3], [56, 0], [56, 6], [56, 13]], 56, (3, 0, 6, 13))],
)
def test_contexts(sizes, left, lookaheads):
    encoder = to_config(changed("encoder.att_context_size", sizes), 1024).encoder
    assert (encoder.left_context_frames, encoder.lookaheads) == (left, lookaheads)


@pytest.mark.parametrize(
    "path,expected",
    [
        ("preprocessor.window_size", ("features", "window_samples", 320)),
        ("preprocessor.window_stride", ("features", "hop_samples", 160)),
        ("preprocessor.preemph", ("features", "preemphasis", 0.97)),
        ("preprocessor.log_zero_guard_value", ("features", "log_guard", 2.0**-24)),
        ("encoder.n_heads", ("encoder", "heads", 4)),
        ("encoder.ff_expansion_factor", ("encoder", "feedforward_width", 4096)),
        ("encoder.subsampling_conv_channels", ("encoder", "subsampling_channels", 1024)),
        ("encoder.use_bias", ("encoder", "use_bias", True)),
        ("encoder.xscaling", ("encoder", "scale_input", True)),
        ("encoder.dropout", ("encoder", "dropout", 0.1)),
        ("encoder.dropout_att", ("encoder", "attention_dropout", 0.0)),
        ("decoder.prednet.dropout", ("prediction", "dropout", 0.0)),
        ("joint.jointnet.dropout", ("joint", "dropout", 0.0)),
    ],
)
def test_defaults_are_those_of_nemo(path, expected):
    part, name, value = expected
    made = changed("encoder.n_heads", 16, changed("decoder.prednet.dropout", 0.2, changed("preprocessor.preemph", 0.9)))
    made["preprocessor"]["log_zero_guard_value"] = 1.0
    assert getattr(getattr(to_config(changed(path, ..., made), 1024), part), name) == value


def test_default_number_of_mel_bins():
    made = changed("preprocessor.features", ..., changed("encoder.feat_in", 64))
    assert to_config(made, 1024).features.mel_bins == 64


@pytest.mark.parametrize("window,fft", [(511, 512), (512, 512), (513, 1024)])
def test_default_fft_is_the_next_power_of_two(window, fft):
    made = changed("preprocessor.n_fft", ..., changed("preprocessor.window_size", None))
    made["preprocessor"]["n_window_size"] = window
    assert to_config(made, 1024).features.fft_samples == fft


def test_windows_in_samples():
    features = dataclasses.replace(CONFIG.features, window_samples=401, fft_samples=1024)
    config = dataclasses.replace(CONFIG, features=features)
    made = settings(config)
    assert to_config(made, config.vocabulary) == config
    del made["preprocessor"]["n_fft"]
    assert to_config(made, config.vocabulary).features.fft_samples == 512


@pytest.mark.parametrize(
    "path,value",
    [
        ("preprocessor.preemph", 0.9),
        ("preprocessor.preemph", None),
        ("preprocessor.log_zero_guard_value", "1e-6"),
        ("preprocessor.log_zero_guard_value", 1e-6),
        ("preprocessor.log_zero_guard_value", "tiny"),
        ("preprocessor.highfreq", 8000),
        ("preprocessor.dither", 0.1),
        ("preprocessor.pad_to", 16),
        ("encoder.subsampling_conv_channels", -1),
        ("encoder.conv_context_size", [8, 0]),
        ("encoder.feat_out", 1024),
        ("sample_rate", 16000.0),
        ("preprocessor.sample_rate", 16000.0),
        ("loss.loss_name", "graph_w_transducer"),  # its models decode as others do
        ("encoder.use_bias", ...),
        ("encoder.pos_emb_max_len", 10),
        ("decoder.prednet.forget_gate_bias", 2.0),
        ("decoding.greedy", {"max_symbols_per_step": 7, "loop_labels": True, "boosting_tree": {"model_path": None}}),
        ("decoding.strategy", "greedy"),
        ("joint.num_classes", -1),
        ("labels", ["a"] * 1024),
        ("optim.anything", {"at": "all"}),
        ("preprocessor.normalize", "none"),
        ("preprocessor.normalize", "None"),
        ("preprocessor.normalize", False),
        ("encoder.feat_out", None),
        ("encoder._target_", "nemo.collections.asr.modules.conformer_encoder.ConformerEncoderAdapter"),
        ("joint._target_", "nemo.collections.asr.modules.SampledRNNTJoint"),
        ("tokenizer.type", "BPE"),
        ("tokenizer.special_tokens", {}),
        ("tokenizer.update_tokenizer", False),
        ("char_labels", {"update_labels": False, "labels": None}),
        ("adapters", {"__global_settings__": {"check": True}}),
        ("target", "nemo.collections.asr.models.asr_eou_models.EncDecHybridRNNTCTCBPEEOUModel"),
    ],
)
def test_supported_settings(path, value):
    assert read(changed(path, value), 1024).notes == []


ANOTHER_VOCABULARY = "of another vocabulary than the tokenizer's 1024 pieces; left out"


@pytest.mark.parametrize(
    "path,value,note",
    [
        ("labels", ["a"] * 96, "labels: of another vocabulary than the tokenizer's 1024 pieces; left out"),
        (
            "decoder.vocab_size",
            96,
            "decoder.vocab_size: of another vocabulary than the tokenizer's 1024 pieces; left out",
        ),
        (
            "joint.vocabulary",
            ["a", "b"],
            "joint.vocabulary: of another vocabulary than the tokenizer's 1024 pieces; left out",
        ),
        ("data", {"train_ds": 3}, "settings that nemojax does not use: data"),
        ("tokenizer.mine", 3, "settings that nemojax does not use: tokenizer.mine"),
        ("decoding.mine", 3, "settings that nemojax does not use: decoding.mine"),
        (
            "encoder.att_context_size",
            [[70, 13], [70, 13]],
            "encoder.att_context_size: [[70, 13], [70, 13]] has a look-ahead twice; once is enough",
        ),
        (
            "preprocessor.normalize",
            "per_utterance",
            "preprocessor.normalize: per_utterance is left out: it names no normalization, also for NeMo",
        ),
    ],
)
def test_notes_on_what_has_no_effect(path, value, note):
    """Each is printed once, and the settings are those of the release without it."""
    config, notes = read(changed(path, value), 1024)
    assert notes == [note]
    expected = PRESETS["0.6b"]
    if "att_context_size" in path:
        expected = dataclasses.replace(expected, encoder=dataclasses.replace(expected.encoder, lookaheads=(13,)))
    assert config == expected


def test_values_of_supported_settings():
    many = changed("decoder.prednet.pred_rnn_layers", 128, changed("encoder.n_layers", 128))
    assert to_config(many, 1024).encoder.layers == to_config(many, 1024).prediction.layers == 128
    slow = changed("sample_rate", 8000, changed("preprocessor.sample_rate", 8000))
    assert to_config(slow, 1024).features.window_samples == 200 and to_config(slow, 1024).features.hop_samples == 80
    assert to_config(changed("sample_rate", ..., changed("preprocessor.sample_rate", ...)), 1024) == PRESETS["0.6b"]
    assert to_config(changed("preprocessor.preemph", None), 1024).features.preemphasis == 0
    assert to_config(changed("preprocessor.log_zero_guard_value", "eps"), 1024).features.log_guard == 2.0**-23
    assert to_config(changed("encoder.subsampling_conv_channels", -1), 1024).encoder.subsampling_channels == 1024
    assert to_config(changed("encoder.use_bias", ...), 1024).encoder.use_bias is True
    assert to_config(changed("encoder.ff_expansion_factor", 2), 1024).encoder.feedforward_width == 2048
    assert to_config(changed("decoding.greedy", {"max_symbols_per_step": 7}), 1024).max_symbols_per_frame == 7


def test_only_unknown_settings_can_be_skipped():
    made = changed("encoder.flash", 1, changed("decoder.prednet.new", 1, changed("extra", 1)))
    made = changed("target", "mine.Model", made)
    skipped = ("encoder.flash", "decoder.prednet.new", "extra", "target")
    assert read(made, 1024, skipped) == (PRESETS["0.6b"], [])
    with pytest.raises(
        ConvertError, match=whole("model_config.yaml: encoder.reduction: pooling is not supported, only null")
    ):
        to_config(changed("encoder.reduction", "pooling"), 1024, ("encoder.reduction",))


@pytest.mark.parametrize("path", ["nemo:0_tokenizer.model", "0_tokenizer.model", "/data/spe/0_tokenizer.model"])
def test_name_of_the_tokenizers_member(path):
    made = {"tokenizer": {"dir": "/data", "type": "bpe", "model_path": path, "vocab_path": "nemo:vocab.txt"}}
    assert nemo.settings.tokenizer_member(made) == "0_tokenizer.model"
