import pytest

from convert.errors import ConvertError
from convert.nemo.kinds import TRANSDUCERS, other_kinds
from convert.nemo.settings import to_config
from tests.convert.nemo.test_settings import RELEASE, changed

MODELS = "nemo.collections.asr.models"


def test_the_release_is_of_the_family():
    assert other_kinds(RELEASE) == []


# for each kind: a setting that names it, its value, and how the message quotes them where that is not plain
KINDS = {
    "a multitalker model: it has speaker kernels and needs a diarizer": [
        ("target", f"{MODELS}.multitalker_asr_models.EncDecMultiTalkerRNNTBPEModel", None),
        ("spk_kernel_type", "ff", "spk_kernel_type"),
        ("bg_spk_kernel_layers", [0], "bg_spk_kernel_layers"),
    ],
    "a prompt model: a network after its encoder takes the language": [
        ("target", f"{MODELS}.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt", None),
        ("num_prompts", 128, "num_prompts"),
    ],
    "a CTC model: it has no prediction and joint networks": [("target", f"{MODELS}.EncDecCTCModelBPE", None)],
    "a transducer of characters: it has no SentencePiece tokenizer": [
        ("target", f"{MODELS}.EncDecRNNTModel", None),
        ("target", "EncDecHybridRNNTCTCModel", None),
    ],
    "an encoder-decoder model with attention: it has no transducer": [
        ("target", f"{MODELS}.EncDecMultiTaskModel", None),
        ("target", f"{MODELS}.EncDecTransfModelBPE", None),
    ],
    "a diarizer: it writes no text": [
        ("target", f"{MODELS}.SortformerEncLabelModel", None),
        ("target", "EncDecDiarLabelModel", None),
    ],
    "a classifier: it writes no text": [
        ("target", "EncDecSpeakerLabelModel", None),
        ("target", "EncDecClassificationModel", None),
    ],
    "a model of intents: it writes no transcript": [("target", "SLUIntentSlotBPEModel", None)],
    "a model with adapters": [
        ("adapters", {"__global_settings__": {}, "mine": {"enabled": True}}, "mine"),
        ("adapters", {"a": {}, "b": {}, "c": {}, "d": {}}, "a, b, c"),
    ],
    "a model of several languages, with a tokenizer for each": [("tokenizer.type", "AGG", None)],
    "a model of WordPiece tokens, without a SentencePiece tokenizer": [("tokenizer.type", "wpe", None)],
    "per-feature normalization over the whole recording": [
        ("preprocessor.normalize", "per_feature", None),
        ("preprocessor.normalize", ..., "preprocessor.normalize: per_feature by default"),
    ],
    "normalization of the log-mel frames": [
        ("preprocessor.normalize", "all_features", None),
        ("preprocessor.normalize", {"fixed_mean": [0], "fixed_std": [1]}, None),
    ],
    "local attention": [("encoder.self_attention_model", "rel_pos_local_attn", None)],
    "absolute positions": [("encoder.self_attention_model", "abs_pos", None)],
    "attention with full context": [
        ("encoder.att_context_size", [-1, -1], None),
        ("encoder.att_context_size", [[70, 13], [70, -1]], None),
        ("encoder.att_context_size", None, "encoder.att_context_size: null"),
        ("encoder.att_context_size", ..., "encoder.att_context_size: null by default"),
    ],
    "chunks with context on the right": [
        ("encoder.att_context_style", "chunked_limited_with_rc", None),
        ("encoder.att_chunk_context_size", [[70], [7], [0]], None),
    ],
    "attention that is not in chunks": [
        ("encoder.att_context_style", "regular", None),
        ("encoder.att_context_style", ..., "encoder.att_context_style: regular by default"),
    ],
    "batch normalization": [
        ("encoder.conv_norm_type", "batch_norm", None),
        ("encoder.conv_norm_type", ..., "encoder.conv_norm_type: batch_norm by default"),
    ],
    "convolutions that are not causal": [
        ("encoder.conv_context_size", None, "encoder.conv_context_size: null"),
        ("encoder.conv_context_size", ..., "encoder.conv_context_size: null by default"),
    ],
    "subsampling that is not causal": [
        ("encoder.causal_downsampling", False, "encoder.causal_downsampling: false"),
        ("encoder.causal_downsampling", ..., "encoder.causal_downsampling: false by default"),
    ],
    "a stateless prediction network": [
        ("decoder._target_", "nemo.collections.asr.modules.StatelessTransducerDecoder", None)
    ],
    "TDT durations": [
        ("loss.loss_name", "tdt", None),
        ("loss.loss_name", "tdt_pytorch", None),
        ("decoding.model_type", "tdt", None),
        ("decoding.durations", [0, 1, 2], None),
    ],
    "blanks of several frames": [
        ("loss.loss_name", "multiblank_rnnt", None),
        ("loss.loss_name", "multiblank_rnnt_pytorch", None),
        ("decoding.model_type", "multiblank", None),
        ("decoding.big_blank_durations", [2, 4], None),
    ],
    "outputs beside the labels, as for TDT durations": [("joint.num_extra_outputs", 5, None)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_named(kind):
    """Each is named once, with the setting that it follows from, and no other."""
    for path, value, quoted in KINDS[kind]:
        shown = repr(value.rpartition(".")[2]) if path == "target" else value
        assert other_kinds(changed(path, value)) == [f"{kind} ({quoted or f'{path}: {shown}'})"]


def test_the_message_names_every_kind():
    made = changed("encoder.conv_norm_type", "batch_norm", changed("loss.loss_name", "tdt"))
    with pytest.raises(ConvertError) as caught:
        to_config(made, 1024)
    assert str(caught.value) == (
        "model_config.yaml is not of a cache-aware streaming transducer, the one kind that nemojax runs: "
        "batch normalization (encoder.conv_norm_type: batch_norm); TDT durations (loss.loss_name: tdt)"
    )


def test_what_is_of_no_other_kind():
    assert other_kinds({}) == []
    for path, value in [
        ("adapters", {"global": {}, "__global_settings__": {}}),
        ("encoder.att_context_style", "chunked_limited"),
        ("preprocessor.normalize", "NA"),
        ("joint.num_extra_outputs", 0),
        ("decoding.durations", []),
        *(("target", f"{MODELS}.{name}") for name in TRANSDUCERS),
    ]:
        assert other_kinds(changed(path, value)) == []
    # a class that names its kind is one clause; so is local attention, whose style is another
    made = changed("target", "EncDecRNNTModel", changed("num_prompts", 1))
    assert [kind.partition(":")[0] for kind in other_kinds(made)] == ["a transducer of characters"]
    made = changed("encoder.self_attention_model", "rel_pos_local_attn", changed("encoder.att_context_style", ...))
    assert [kind.partition(" (")[0] for kind in other_kinds(made)] == ["local attention"]


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
