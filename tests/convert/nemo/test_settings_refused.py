"""Settings that are refused, and the whole message on each."""

import pytest

from convert import nemo
from convert.errors import ConvertError
from convert.nemo.settings import parse, to_config
from tests.convert.nemo.release import changed
from tests.helpers.messages import whole


@pytest.mark.parametrize(
    "path,value,message",
    [
        # other features
        ("preprocessor.window", "hamming", "preprocessor.window: hamming is not supported, only hann"),
        ("preprocessor.lowfreq", 20, "preprocessor.lowfreq: 20 is not supported, only 0 or 0.0"),
        (
            "preprocessor.highfreq",
            4000,
            "preprocessor.highfreq: 4000 is not supported, only null or 0 or 8000 or 8000.0",
        ),
        ("preprocessor.mag_power", 1.0, "preprocessor.mag_power: 1.0 is not supported, only 2.0 or 2"),
        ("preprocessor.log_zero_guard_value", "e", "preprocessor.log_zero_guard_value must be float, not 'e'"),
        ("preprocessor.frame_splicing", 2, "preprocessor.frame_splicing: 2 is not supported, only 1"),
        (
            "preprocessor._target_",
            "nemo.AudioToMFCCPreprocessor",
            (
                "preprocessor._target_: 'nemo.AudioToMFCCPreprocessor' is not supported, only "
                "AudioToMelSpectrogramPreprocessor"
            ),
        ),
        ("preprocessor.window_size", 0.1, "features: hop_samples <= window_samples <= fft_samples does not hold"),
        ("sample_rate", 8000, "sample_rate: 8000 differs from the preprocessor's"),
        # other encoders
        (
            "encoder._target_",
            "nemo.collections.asr.modules.ConvASREncoder",
            "encoder._target_: 'nemo.collections.asr.modules.ConvASREncoder' is not supported, only ConformerEncoder",
        ),
        ("encoder.subsampling", "striding", "encoder.subsampling: striding is not supported, only dw_striding"),
        ("encoder.subsampling", ..., "encoder.subsampling: striding (the default) is not supported, only dw_striding"),
        ("encoder.subsampling_factor", "8", "encoder.subsampling_factor: '8' is not supported, only 8"),
        ("encoder.subsampling_factor", 4, "encoder.subsampling_factor: 4 is not supported, only 8"),
        ("encoder.reduction", "pooling", "encoder.reduction: pooling is not supported, only null"),
        ("encoder.untie_biases", False, "encoder.untie_biases: false is not supported, only true"),
        (
            "encoder.conv_context_size",
            [4, 4],
            "encoder.conv_context_size: [4, 4] is not supported, only causal or [8, 0]",
        ),
        ("encoder.conv_context_style", "dcc", "encoder.conv_context_style: dcc is not supported, only regular"),
        (
            "encoder.att_context_size",
            [[70, 13], [140, 6]],
            (
                "encoder.att_context_size: [[70, 13], [140, 6]] is not supported: only limited contexts, "
                "with the same left context in all"
            ),
        ),
        (
            "encoder.att_context_size",
            [[70, 4], [70, 2]],
            (
                "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
                "model was trained with (4, 2)"
            ),
        ),
        ("encoder.att_context_size", [], "encoder.att_context_size: [] is not a pair or a list of pairs"),
        ("encoder.att_context_size", [[70]], "encoder.att_context_size: [[70]] is not a pair or a list of pairs"),
        (
            "encoder.att_context_size",
            ["70", "1"],
            "encoder.att_context_size: ['70', '1'] is not a pair or a list of pairs",
        ),
        ("encoder.att_context_size", [True, 0], "encoder.att_context_size: [True, 0] is not a pair or a list of pairs"),
        ("encoder.feat_out", 512, "encoder.feat_out: 512 is not supported, only -1 or 0 or null or 1024"),
        ("encoder.feat_in", 80, "encoder.feat_in: 80 is not supported: preprocessor.features differs"),
        (
            "encoder.d_model",
            "1024",
            "encoder.d_model must be int, not '1024'; joint.jointnet.encoder_hidden: 1024 is not supported, only 0",
        ),
        (
            "encoder.d_model",
            ...,
            "encoder.d_model is missing; joint.jointnet.encoder_hidden: 1024 is not supported, only 0",
        ),
        ("encoder.n_layers", 0, "encoder.layers must be at least 1, not 0"),
        ("encoder.n_heads", 7, "encoder.width 1024 is not a multiple of encoder.heads 7"),
        ("encoder.flash", 1, "encoder.flash is an unknown setting (--skip-setting encoder.flash ignores it)"),
        # numbers with which a conversion would never end
        ("encoder.n_layers", 10**9, "encoder.n_layers: 1000000000 is out of range"),
        (
            "encoder.d_model",
            2**100,
            (
                "encoder.d_model: 1267650600228229401496703205376 is out of range; "
                "joint.jointnet.encoder_hidden: 1024 is not supported, only 0"
            ),
        ),
        (
            "encoder.att_context_size",
            [2**62, 0],
            (
                "encoder.att_context_size: [4611686018427387904, 0] is not supported: only limited "
                "contexts, with the same left context in all"
            ),
        ),
        ("encoder.dropout", float("nan"), "encoder.dropout: nan is out of range"),
        ("preprocessor.window_size", float("inf"), "preprocessor.window_size: inf is out of range"),
        ("preprocessor.window_size", "1e300", "preprocessor.window_size: 1e+300 is out of range"),
        (
            "preprocessor.window_size",
            10**400,
            "preprocessor.window_size must be float, not 100000000000000000...0000000000000000000",
        ),
        ("preprocessor.window_stride", 2, "preprocessor.window_stride: 2 is not supported: it is longer than a second"),
        # other prediction and joint networks
        (
            "decoder._target_",
            "nemo.collections.asr.modules.MyDecoder",
            "decoder._target_: 'nemo.collections.asr.modules.MyDecoder' is not supported, only RNNTDecoder",
        ),
        (
            "joint._target_",
            "nemo.collections.asr.modules.HATJoint",
            "joint._target_: 'nemo.collections.asr.modules.HATJoint' is not supported, only RNNTJoint",
        ),
        ("decoder.normalization_mode", "layer", "decoder.normalization_mode: layer is not supported, only null"),
        ("decoder.blank_as_pad", False, "decoder.blank_as_pad: false is not supported, only true"),
        (
            "decoder.prednet.rnn_hidden_size",
            320,
            "decoder.prednet.rnn_hidden_size: 320 is not supported, only -1 or 640",
        ),
        (
            "decoder.prednet.pred_hidden",
            ...,
            "decoder.prednet.pred_hidden is missing; joint.jointnet.pred_hidden: 640 is not supported, only 0",
        ),
        (
            "decoder.prednet.gru",
            True,
            "decoder.prednet.gru is an unknown setting (--skip-setting decoder.prednet.gru ignores it)",
        ),
        ("joint.jointnet.activation", "tanh", "joint.jointnet.activation: tanh is not supported, only relu"),
        ("joint.jointnet.pred_hidden", 320, "joint.jointnet.pred_hidden: 320 is not supported, only 640"),
        # sections
        (
            "encoder",
            ...,
            (
                "encoder is missing; encoder.d_model is missing; encoder.feat_in is missing; "
                "encoder.feat_in: null is not supported: preprocessor.features differs; "
                "encoder.conv_context_size: null (the default) is not supported, only causal or [30, 0]; "
                "encoder.att_context_size: null is not supported: only limited contexts, with the same "
                "left context in all; encoder.n_layers is missing; encoder.causal_downsampling: false "
                "(the default) is not supported, only true; and 5 more"
            ),
        ),
        (
            "encoder",
            3,
            (
                "encoder must be a mapping, not 3; encoder.d_model is missing; encoder.feat_in is "
                "missing; encoder.feat_in: null is not supported: preprocessor.features differs; "
                "encoder.conv_context_size: null (the default) is not supported, only causal or [30, 0]; "
                "encoder.att_context_size: null is not supported: only limited contexts, with the same "
                "left context in all; encoder.n_layers is missing; encoder.causal_downsampling: false "
                "(the default) is not supported, only true; and 5 more"
            ),
        ),
        (
            "target",
            3,
            (
                "target: 3 is a class that nemojax does not know, other than EncDecRNNTBPEModel, "
                "EncDecHybridRNNTCTCBPEModel, EncDecRNNTBPEEOUModel, EncDecHybridRNNTCTCBPEEOUModel "
                "(--skip-setting target ignores it)"
            ),
        ),
        (
            "target",
            "mine.Model",
            (
                "target: mine.Model is a class that nemojax does not know, other than "
                "EncDecRNNTBPEModel, EncDecHybridRNNTCTCBPEModel, EncDecRNNTBPEEOUModel, "
                "EncDecHybridRNNTCTCBPEEOUModel (--skip-setting target ignores it)"
            ),
        ),
        (
            "preprocessor.normalize",
            True,
            "preprocessor.normalize: true is not supported: only NA, for no normalization",
        ),
        (
            "preprocessor.features",
            1 << 16,
            (
                "preprocessor.features: 65536 is not supported: with n_fft it gives too many mel "
                "filters; encoder.feat_in: 128 is not supported: preprocessor.features differs"
            ),
        ),
        ("encoder.n_layers", 129, "encoder.n_layers: 129 is not supported: at most 128"),
        ("decoder.prednet.pred_rnn_layers", 129, "decoder.prednet.pred_rnn_layers: 129 is not supported: at most 128"),
        (
            "encoder.att_context_size",
            [[70, -2]],
            (
                "encoder.att_context_size: [[70, -2]] is not supported: only limited contexts, with the "
                "same left context in all"
            ),
        ),
        (
            "encoder.att_context_size",
            [0, 0],
            (
                "encoder.att_context_size: [0, 0] is not supported: only limited contexts, with the same "
                "left context in all"
            ),
        ),
        ("encoder.subsampling_conv_channels", 0, "encoder.subsampling_channels must be at least 1, not 0"),
        ("joint.jointnet.encoder_hidden", 512, "joint.jointnet.encoder_hidden: 512 is not supported, only 1024"),
        (
            "tokenizer.special_tokens",
            {"pad": "<pad>"},
            "tokenizer.special_tokens: {'pad': '<pad>'} is not supported, only null or {} or []",
        ),
    ],
)
def test_unsupported_settings_are_named(path, value, message):
    with pytest.raises(ConvertError) as caught:
        to_config(changed(path, value), 1024)
    assert str(caught.value) == f"model_config.yaml: {message}"


def test_all_problems_are_named_at_once():
    made = changed("encoder.flash", 1, changed("encoder.reduction", "pooling", changed("joint.x", 1)))
    with pytest.raises(
        ConvertError,
        match=whole(
            "model_config.yaml: encoder.reduction: pooling is not supported, only null; encoder.flash "
            "is an unknown setting (--skip-setting encoder.flash ignores it); joint.x is an unknown "
            "setting (--skip-setting joint.x ignores it)"
        ),
    ):
        to_config(made, 1024)


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
