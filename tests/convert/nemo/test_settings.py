import copy
import dataclasses
import json

import pytest
import yaml

from convert import nemo
from convert.errors import ConvertError
from convert.nemo.recipe import to_settings
from convert.nemo.settings import parse, read, to_config
from nemojax.config import PRESETS, JointConfig, PredictionConfig
from tests.convert.samples import CONFIG, FAMILY, UNUSUAL, settings

# Settings of a release beside the model's parts: NeMo's recipe as NeMo saves it.
BESIDE = """
sample_rate: 16000
compute_eval_loss: false
log_prediction: true
rnnt_reduction: mean_volume
skip_nan_grad: false
model_defaults: {enc_hidden: 1024, pred_hidden: 640, joint_hidden: 640}
train_ds:
  manifest_filepath: [[a.json], [b.json]]
  use_lhotse: true
  batch_duration: null
  augmentor: {white_noise: {prob: 0.9, min_level: -90}}
validation_ds:
  manifest_filepath: ???
  batch_size: 16
test_ds: {manifest_filepath: null}
tokenizer:
  dir: /data/tokenizers/spe_bpe_v1024
  type: bpe
  model_path: nemo:2afb0d4e_tokenizer.model
  vocab_path: nemo:9dfe1c2b_vocab.txt
  spe_tokenizer_vocab: nemo:c1d2e3f4_tokenizer.vocab
spec_augment: {_target_: nemo.collections.asr.modules.SpectrogramAugmentation, freq_masks: 2, time_masks: 10}
interctc: {loss_weights: [], apply_at_layers: []}
variational_noise: {start_step: 0, std: 0.0}
loss: {loss_name: default, warprnnt_numba_kwargs: {fastemit_lambda: 5e-3, clamp: -1.0}}
optim: {name: adamw, lr: 5.0, betas: [0.9, 0.98], sched: {name: NoamAnnealing, min_lr: 1e-6}}
target: nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel
nemo_version: 2.6.0rc0
"""
PARTS = """
preprocessor:
  {_target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor, sample_rate: 16000, normalize: NA,
   window_size: 0.025, window_stride: 0.01, window: hann, features: 128, n_fft: 512, log: true, frame_splicing: 1,
   dither: 1.0e-05, pad_to: 0, pad_value: 0.0}
encoder:
  {_target_: nemo.collections.asr.modules.ConformerEncoder, feat_in: 128, feat_out: -1, n_layers: 24,
   d_model: 1024, use_bias: false, subsampling: dw_striding, subsampling_factor: 8, subsampling_conv_channels: 256,
   causal_downsampling: true, reduction: null, reduction_position: null, reduction_factor: 1,
   ff_expansion_factor: 4, self_attention_model: rel_pos, n_heads: 8,
   att_context_size: [[70, 13], [70, 6], [70, 1], [70, 0]], att_context_style: chunked_limited,
   att_context_probs: null, xscaling: false, untie_biases: true, pos_emb_max_len: 5000, conv_kernel_size: 9,
   conv_norm_type: layer_norm, conv_context_size: causal, dropout: 0.1, dropout_pre_encoder: 0.1, dropout_emb: 0.0,
   dropout_att: 0.1, stochastic_depth_drop_prob: 0.0, stochastic_depth_mode: linear, stochastic_depth_start_layer: 1}
decoder:
  {_target_: nemo.collections.asr.modules.RNNTDecoder, normalization_mode: null, random_state_sampling: false,
   blank_as_pad: true, prednet: {pred_hidden: 640, pred_rnn_layers: 2, t_max: null, dropout: 0.2}, vocab_size: 1024}
joint:
  {_target_: nemo.collections.asr.modules.RNNTJoint, log_softmax: null, preserve_memory: false, fuse_loss_wer: true,
   fused_batch_size: 4, jointnet: {joint_hidden: 640, activation: relu, dropout: 0.2, encoder_hidden: 1024,
   pred_hidden: 640}, num_classes: 1024}
decoding:
  strategy: greedy_batch
  greedy: {max_symbols: 10}
  beam: {beam_size: 2, return_best_hypothesis: false, score_norm: true, tsd_max_sym_exp: 50, alsd_max_target_len: 2.0}
"""
RELEASE = parse((BESIDE + PARTS).encode())
# with what only NeMo can express
ALL_UNUSUAL = dataclasses.replace(
    UNUSUAL,
    features=dataclasses.replace(UNUSUAL.features, sample_rate_hz=8000, log_guard=0.125),
    prediction=PredictionConfig(width=20, layers=3, dropout=0.35),
    joint=JointConfig(width=28, dropout=0.45),
)


def changed(path: str, value, base=RELEASE) -> dict:
    """Returns the release's settings with one value replaced, or removed if it is `...`."""
    made = copy.deepcopy(base)
    *sections, key = path.split(".")
    place = made
    for section in sections:
        place = place.setdefault(section, {})
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return made


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


@pytest.mark.parametrize("config", [*PRESETS.values(), CONFIG, FAMILY, ALL_UNUSUAL])
def test_round_trip(config):
    texts = [f"piece{i}" for i in range(config.vocabulary)]
    made = to_settings(config, texts, {"model_path": "0_tokenizer.model"})
    again = parse(nemo.recipe.dump(made))
    assert again == made and to_config(again, config.vocabulary) == config


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


def test_windows_that_seconds_can_not_express():
    """NeMo truncates seconds x rate, which for these lengths is a sample too short."""
    lengths = [n for n in range(320, 1024) if int(n / 16_000 * 16_000) != n]
    assert lengths
    for length in lengths[:3]:
        features = dataclasses.replace(CONFIG.features, window_samples=length, fft_samples=1024)
        config = dataclasses.replace(CONFIG, features=features)
        assert to_config(settings(config), config.vocabulary) == config


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
        ("preprocessor.highfreq", 8000),
        ("preprocessor.dither", 0.1),
        ("preprocessor.pad_to", 16),
        ("encoder.subsampling_conv_channels", -1),
        ("encoder.conv_context_size", [8, 0]),
        ("encoder.feat_out", 1024),
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
    assert to_config(changed("preprocessor.preemph", None), 1024).features.preemphasis == 0
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
        ("preprocessor.log_zero_guard_value", "eps", "preprocessor.log_zero_guard_value must be float, not 'eps'"),
        ("preprocessor.frame_splicing", 2, "preprocessor.frame_splicing: 2"),
        ("preprocessor._target_", "nemo.AudioToMFCCPreprocessor", "preprocessor._target_: 'nemo.AudioToMFCCPre"),
        ("preprocessor.window_size", 0.1, "window_samples <= fft_samples"),
        ("sample_rate", 8000, "sample_rate: 8000 differs from the preprocessor's"),
        # other encoders
        ("encoder._target_", "nemo.collections.asr.modules.ConvASREncoder", "only ConformerEncoder"),
        ("encoder.subsampling", "striding", "encoder.subsampling: striding is not supported, only dw_striding"),
        ("encoder.subsampling", ..., r"encoder.subsampling: striding \(the default\)"),
        ("encoder.subsampling_factor", 4, "encoder.subsampling_factor: 4 is not supported, only 8"),
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
        ("decoder.normalization_mode", "layer", "decoder.normalization_mode: layer"),
        ("decoder.blank_as_pad", False, "decoder.blank_as_pad: false"),
        ("decoder.prednet.rnn_hidden_size", 320, "decoder.prednet.rnn_hidden_size: 320"),
        ("decoder.prednet.pred_hidden", ..., "decoder.prednet.pred_hidden is missing"),
        ("decoder.prednet.gru", True, "decoder.prednet.gru is an unknown setting"),
        ("joint.jointnet.activation", "tanh", "joint.jointnet.activation: tanh is not supported, only relu"),
        ("joint.jointnet.pred_hidden", 320, "joint.jointnet.pred_hidden: 320 is not supported, only 640"),
        # other losses
        ("loss.loss_name", "graph_w_transducer", "loss.loss_name: graph_w_transducer"),
        # sections
        ("encoder", ..., "encoder is missing"),
        ("encoder", 3, "encoder.* must be a mapping, not 3"),
        ("target", 3, "target: 3"),
        ("target", "mine.Model", r"target: 'mine.Model' is a class that .* \(--skip-setting target ignores it\)"),
        ("preprocessor.normalize", True, "preprocessor.normalize: true is not supported: only NA"),
        ("preprocessor.features", 1 << 16, "preprocessor.features: 65536 is not supported: with n_fft"),
        ("encoder.n_layers", 300, "encoder.n_layers: 300 is not supported: at most 256"),
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


def test_strings_that_look_like_other_types_stay_strings():
    pieces = ["y", "n", "No", "true", "1e3", "1_0", "12:30", "~", "null", "0x1F", ".5", "-", "▁the", "é", "'", '"', "#"]
    assert yaml.safe_load(nemo.recipe.dump({"labels": pieces}))["labels"] == pieces
    assert json.loads(json.dumps(pieces)) == pieces
    for text in ("y", "n", "1e3", "1_0", ".5", "-"):  # some YAML readers parse these as other types without quotes
        assert f"- '{text}'\n" in nemo.recipe.dump({"labels": [text]}).decode()


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


def test_a_model_that_nemo_can_not_express():
    encoder = dataclasses.replace(CONFIG.encoder, feedforward_width=70)
    with pytest.raises(ConvertError, match="not a multiple of 32"):
        settings(dataclasses.replace(CONFIG, encoder=encoder))
