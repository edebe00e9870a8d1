import dataclasses

import pytest

from convert import nemo
from convert.errors import ConvertError
from convert.nemo.settings import parse, read, to_config
from nemojax.config import PRESETS
from tests.convert.nemo.release import RELEASE, changed
from tests.convert.samples import CONFIG, settings


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


@pytest.mark.parametrize(
    "path,value,message",
    [
        # other features
        ("preprocessor.window", "hamming", "preprocessor.window: hamming is not supported, only hann"),
        ("preprocessor.lowfreq", 20, "preprocessor.lowfreq: 20"),
        ("preprocessor.highfreq", 4000, "preprocessor.highfreq: 4000"),
        ("preprocessor.mag_power", 1.0, "preprocessor.mag_power: 1.0"),
        ("preprocessor.log_zero_guard_value", "e", "preprocessor.log_zero_guard_value must be float, not 'e'"),
        ("preprocessor.frame_splicing", 2, "preprocessor.frame_splicing: 2"),
        ("preprocessor._target_", "nemo.AudioToMFCCPreprocessor", "preprocessor._target_: 'nemo.AudioToMFCCPre"),
        ("preprocessor.window_size", 0.1, "window_samples <= fft_samples"),
        ("sample_rate", 8000, "sample_rate: 8000 differs from the preprocessor's"),
        # other encoders
        ("encoder._target_", "nemo.collections.asr.modules.ConvASREncoder", "only ConformerEncoder"),
        ("encoder.subsampling", "striding", "encoder.subsampling: striding is not supported, only dw_striding"),
        ("encoder.subsampling", ..., r"encoder.subsampling: striding \(the default\)"),
        ("encoder.subsampling_factor", 4, "encoder.subsampling_factor: 4 is not supported, only 8"),
        ("encoder.subsampling_factor", "8", "encoder.subsampling_factor: '8' is not supported, only 8"),
        ("encoder.reduction", "pooling", "encoder.reduction: pooling is not supported, only null"),
        ("encoder.untie_biases", False, "encoder.untie_biases: false"),
        ("encoder.conv_context_size", [4, 4], r"encoder.conv_context_size: \[4, 4\]"),
        ("encoder.conv_context_style", "dcc", "encoder.conv_context_style: dcc"),
        ("encoder.att_context_size", [[70, 13], [140, 6]], "the same left context in all"),
        ("encoder.att_context_size", [[70, 4], [70, 2]], "lookahead 2 does not fit"),
        ("encoder.att_context_size", [], "is not a pair or a list of pairs"),
        ("encoder.att_context_size", [[70]], "is not a pair or a list of pairs"),
        ("encoder.att_context_size", ["70", "1"], "is not a pair or a list of pairs"),
        ("encoder.att_context_size", [True, 0], "is not a pair or a list of pairs"),
        ("encoder.feat_out", 512, "encoder.feat_out: 512"),
        ("encoder.feat_in", 80, "encoder.feat_in: 80 is not supported: preprocessor.features differs"),
        ("encoder.d_model", "1024", "encoder.d_model must be int, not '1024'"),
        ("encoder.d_model", ..., "encoder.d_model is missing"),
        ("encoder.n_layers", 0, "encoder.layers must be at least 1"),
        ("encoder.n_heads", 7, "not a multiple of encoder.heads"),
        ("encoder.flash", 1, "encoder.flash is an unknown setting"),
        # numbers with which a conversion would never end
        ("encoder.n_layers", 10**9, "encoder.n_layers: 1000000000 is out of range"),
        ("encoder.d_model", 2**100, "encoder.d_model: .* is out of range"),
        ("encoder.att_context_size", [2**62, 0], "only limited contexts"),
        ("encoder.dropout", float("nan"), "encoder.dropout: nan is out of range"),
        ("preprocessor.window_size", float("inf"), "preprocessor.window_size: inf is out of range"),
        ("preprocessor.window_size", "1e300", "preprocessor.window_size: .* is out of range"),
        ("preprocessor.window_size", 10**400, "preprocessor.window_size must be float"),
        ("preprocessor.window_stride", 2, "preprocessor.window_stride: 2 is not supported: it is longer than a second"),
        # other prediction and joint networks
        ("decoder._target_", "nemo.collections.asr.modules.MyDecoder", "only RNNTDecoder"),
        ("joint._target_", "nemo.collections.asr.modules.HATJoint", "only RNNTJoint"),
        ("decoder.normalization_mode", "layer", "decoder.normalization_mode: layer"),
        ("decoder.blank_as_pad", False, "decoder.blank_as_pad: false"),
        ("decoder.prednet.rnn_hidden_size", 320, "decoder.prednet.rnn_hidden_size: 320"),
        ("decoder.prednet.pred_hidden", ..., "decoder.prednet.pred_hidden is missing"),
        ("decoder.prednet.gru", True, "decoder.prednet.gru is an unknown setting"),
        ("joint.jointnet.activation", "tanh", "joint.jointnet.activation: tanh is not supported, only relu"),
        ("joint.jointnet.pred_hidden", 320, "joint.jointnet.pred_hidden: 320 is not supported, only 640"),
        # sections
        ("encoder", ..., "encoder is missing"),
        ("encoder", 3, "encoder.* must be a mapping, not 3"),
        ("target", 3, "target: 3"),
        ("target", "mine.Model", r"target: mine.Model is a class that .* \(--skip-setting target ignores it\)"),
        ("preprocessor.normalize", True, "preprocessor.normalize: true is not supported: only NA"),
        ("preprocessor.features", 1 << 16, "preprocessor.features: 65536 is not supported: with n_fft"),
        ("encoder.n_layers", 129, "encoder.n_layers: 129 is not supported: at most 128"),
        ("decoder.prednet.pred_rnn_layers", 129, "pred_rnn_layers: 129 is not supported: at most 128"),
        ("encoder.att_context_size", [[70, -2]], "only limited contexts"),
        ("encoder.att_context_size", [0, 0], "only limited contexts"),
        ("encoder.subsampling_conv_channels", 0, "subsampling_channels must be at least 1"),
        ("joint.jointnet.encoder_hidden", 512, "joint.jointnet.encoder_hidden: 512 is not supported, only 1024"),
        ("tokenizer.special_tokens", {"pad": "<pad>"}, "tokenizer.special_tokens: {'pad': '<pad>'} is not supported"),
    ],
)
def test_unsupported_settings_are_named(path, value, message):
    with pytest.raises(ConvertError, match=f"model_config.yaml: .*{message}"):
        to_config(changed(path, value), 1024)


def test_all_problems_are_named_at_once():
    made = changed("encoder.flash", 1, changed("encoder.reduction", "pooling", changed("joint.x", 1)))
    with pytest.raises(ConvertError, match=r"reduction.*flash.*joint\.x"):
        to_config(made, 1024)


def test_only_unknown_settings_can_be_skipped():
    made = changed("encoder.flash", 1, changed("decoder.prednet.new", 1, changed("extra", 1)))
    made = changed("target", "mine.Model", made)
    skipped = ("encoder.flash", "decoder.prednet.new", "extra", "target")
    assert read(made, 1024, skipped) == (PRESETS["0.6b"], [])
    with pytest.raises(ConvertError, match=r"encoder\.reduction"):
        to_config(changed("encoder.reduction", "pooling"), 1024, ("encoder.reduction",))


@pytest.mark.parametrize("path", ["encoder.xscaling", "encoder.flash", "decoding.strategy", "target", "loss.loss_name"])
def test_messages_stay_short_however_large_the_value(path):
    for value in ("x" * 100_000, [[[[["deep"]]]]] * 1000, {str(i): i for i in range(1000)}):
        try:
            to_config(changed(path, value), 1024)
        except ConvertError as error:
            assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "text,message",
    [
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML.*could not determine a constructor"),
        ("a: &x [1, *x]", "is not YAML: the alias 'x' stands for nothing, or for itself"),
        ("a: *x", "is not YAML"),
        ('a: "\\ud800"', "is not YAML"),
        ("[" * 5000, "nested too deeply|is not YAML"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: \udcff", "is not YAML"),
        ("{[1]: 2}", "is not YAML|must be"),
        ("a: 2001-99-99", "is not YAML"),
    ],
)
def test_files_that_are_not_settings(text, message):
    with pytest.raises(ConvertError, match=message):
        parse(text.encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    "section,message",
    [
        ({"type": "wpe"}, "tokenizer.type: wpe is not supported: only bpe"),
        ({"type": "agg", "langs": {}}, "tokenizer.type: agg is not supported: only bpe"),
        ({"type": "bpe"}, "tokenizer.model_path is missing"),
        ({"type": "bpe", "model_path": "x", "custom_tokenizer": {}}, "tokenizer.custom_tokenizer: {} is not supported"),
    ],
)
def test_other_tokenizers_are_refused(section, message):
    with pytest.raises(ConvertError, match=message):
        nemo.settings.tokenizer_member({"tokenizer": section})


@pytest.mark.parametrize("path", ["nemo:0_tokenizer.model", "0_tokenizer.model", "/data/spe/0_tokenizer.model"])
def test_name_of_the_tokenizers_member(path):
    made = {"tokenizer": {"dir": "/data", "type": "bpe", "model_path": path, "vocab_path": "nemo:vocab.txt"}}
    assert nemo.settings.tokenizer_member(made) == "0_tokenizer.model"
