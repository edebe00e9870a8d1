import pytest

from convert.errors import ConvertError
from convert.nemo.kinds import other_kinds
from convert.nemo.settings import to_config
from tests.convert.nemo.test_settings import RELEASE, changed

MODELS = "nemo.collections.asr.models"


def test_the_release_is_of_the_family():
    assert other_kinds(RELEASE) == []


@pytest.mark.parametrize(
    "path,value,kind",
    [
        ("target", f"{MODELS}.multitalker_asr_models.EncDecMultiTalkerRNNTBPEModel", "a multitalker model"),
        ("spk_kernel_type", "ff", "a multitalker model"),
        ("target", f"{MODELS}.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt", "a prompt model"),
        ("num_prompts", 128, "a prompt model"),
        ("target", f"{MODELS}.EncDecCTCModelBPE", "a CTC model"),
        ("target", f"{MODELS}.EncDecRNNTModel", "a transducer of characters"),
        ("target", f"{MODELS}.EncDecMultiTaskModel", "an encoder-decoder model with attention"),
        ("target", f"{MODELS}.SortformerEncLabelModel", "a diarizer"),
        ("adapters", {"__global_settings__": {}, "mine": {"enabled": True}}, r"a model with adapters \(mine\)"),
        ("tokenizer.type", "agg", "a model of several languages"),
        ("tokenizer.type", "wpe", "a model of WordPiece tokens"),
        (
            "preprocessor.normalize",
            "per_feature",
            r"per-feature normalization .*normalize: per_feature\)",
        ),
        ("preprocessor.normalize", ..., r"per-feature normalization .* per_feature by default\)"),
        ("preprocessor.normalize", "all_features", "normalization of the log-mel frames"),
        ("preprocessor.normalize", {"fixed_mean": [0], "fixed_std": [1]}, "normalization of the log-mel frames"),
        ("encoder.self_attention_model", "rel_pos_local_attn", "local attention"),
        ("encoder.self_attention_model", "abs_pos", "absolute positions"),
        ("encoder.att_context_size", [-1, -1], "attention with full context"),
        ("encoder.att_context_size", [[70, 13], [70, -1]], "attention with full context"),
        ("encoder.att_context_size", None, "attention with full context"),
        ("encoder.att_context_style", "chunked_limited_with_rc", "chunks with context on the right"),
        ("encoder.att_chunk_context_size", [[70], [7], [0]], "chunks with context on the right"),
        ("encoder.att_context_style", "regular", "attention that is not in chunks"),
        ("encoder.conv_norm_type", "batch_norm", "batch normalization"),
        ("encoder.conv_norm_type", ..., r"batch normalization \(encoder.conv_norm_type: batch_norm by default\)"),
        ("encoder.conv_context_size", None, "convolutions that are not causal"),
        ("encoder.causal_downsampling", False, "subsampling that is not causal"),
        (
            "decoder._target_",
            "nemo.collections.asr.modules.StatelessTransducerDecoder",
            "a stateless prediction network",
        ),
        ("loss.loss_name", "tdt", r"TDT durations \(loss.loss_name: tdt\)"),
        ("decoding.model_type", "tdt", r"TDT durations \(decoding.model_type: tdt\)"),
        ("decoding.durations", [0, 1, 2], r"TDT durations \(decoding.durations: \[0, 1, 2\]\)"),
        ("decoding.big_blank_durations", [2, 4], "blanks of several frames"),
        ("joint.num_extra_outputs", 5, "outputs beside the labels, as for TDT durations"),
    ],
)
def test_other_kinds_are_named(path, value, kind):
    with pytest.raises(ConvertError, match=f"not of a cache-aware streaming transducer, .*: {kind}"):
        to_config(changed(path, value), 1024)


def test_all_traits_are_named_once():
    made = changed("preprocessor.normalize", "per_feature", changed("encoder.att_context_size", [-1, -1]))
    made = changed("encoder.att_context_style", "regular", changed("encoder.conv_norm_type", "batch_norm", made))
    assert [kind.partition(" (")[0] for kind in other_kinds(made)] == [
        "per-feature normalization over the whole recording",
        "attention with full context",
        "batch normalization",
    ]


@pytest.mark.parametrize("value", [None, 3, [], [[]], "x", {"a": []}, float("nan")])
@pytest.mark.parametrize(
    "path", ["target", "adapters", "encoder", "encoder.att_context_size", "loss", "decoding.durations"]
)
def test_values_of_any_type(path, value):
    other_kinds(changed(path, value))
