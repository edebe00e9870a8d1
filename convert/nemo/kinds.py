"""Names the kinds of NeMo's models that nemojax does not run, by what their settings hold.

nemojax runs one kind: a cache-aware streaming transducer with a SentencePiece tokenizer. A user who brings a model of
another kind should read what kind it is, not a list of values.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from convert.errors import as_written, short

# a part of a model class's name, and what such a model is; the first that fits counts
CLASSES = {
    "MultiTalker": "a multitalker model: it has speaker kernels and needs a diarizer",
    "Prompt": "a prompt model: a network after its encoder takes the language",
    "CTCModel": "a CTC model: it has no prediction and joint networks",
    "MultiTask": "an encoder-decoder model with attention: it has no transducer",
    "Transf": "an encoder-decoder model with attention: it has no transducer",
    "Sortformer": "a diarizer: it writes no text",
    "Diar": "a diarizer: it writes no text",
    "Label": "a classifier: it writes no text",
    "Classification": "a classifier: it writes no text",
    "SLU": "a model of intents: it writes no transcript",
}
TRANSDUCERS_OF_CHARACTERS = ("EncDecRNNTModel", "EncDecHybridRNNTCTCModel")
TRANSDUCERS = (
    *("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel"),
    *("EncDecRNNTBPEEOUModel", "EncDecHybridRNNTCTCBPEEOUModel"),
)
DURATION_LOSSES = ("tdt", "tdt_pytorch")
BIG_BLANK_LOSSES = ("multiblank_rnnt", "multiblank_rnnt_pytorch")
ADAPTER = "adapter_layer"  # part of the names of an adapter's tensors


def other_kinds(settings: Mapping[str, Any]) -> list[str]:
    """Returns a clause for each trait of another kind of model that the settings name; empty for this family."""
    parts = ("preprocessor", "encoder", "decoder", "joint", "decoding", "loss", "tokenizer")
    sections = {part: SettingsPart(part, settings.get(part)) for part in parts}
    found = [
        *_class(settings),
        *_adapters(settings),
        *_tokenizer(sections["tokenizer"]),
        *_features(sections["preprocessor"]),
        *_encoder(sections["encoder"]),
        *_transducer(sections["decoder"], sections["joint"], sections["decoding"], sections["loss"]),
    ]
    return list(dict.fromkeys(found))


class SettingsPart:
    """A section of the settings as it stands, of any type; absent values are NeMo's defaults."""

    def __init__(self, name: str, values: Any) -> None:
        self.name, self.present = name, isinstance(values, Mapping)
        self.values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def quote(self, key: str, default: Any = None) -> str:
        """Returns a setting with its value, as a settings file has it."""
        by_default = "" if key in self.values else " by default"
        return f"({self.name}.{key}: {as_written(self.get(key, default))}{by_default})"


def _class(settings: Mapping[str, Any]) -> Iterator[str]:
    target = settings.get("target")
    name = target.rpartition(".")[2] if isinstance(target, str) else ""
    kind = next((kind for part, kind in CLASSES.items() if part in name and name not in TRANSDUCERS), None)
    if name in TRANSDUCERS_OF_CHARACTERS:
        yield f"a transducer of characters: it has no SentencePiece tokenizer (target: {short(name)})"
    elif kind is not None:
        yield f"{kind} (target: {short(name)})"
    elif kernels := [
        key for key in settings if isinstance(key, str) and key.startswith(("spk_kernel", "bg_spk_kernel"))
    ]:
        yield f"{CLASSES['MultiTalker']} ({as_written(kernels[0])})"
    elif "num_prompts" in settings:
        yield f"{CLASSES['Prompt']} (num_prompts)"


def _adapters(settings: Mapping[str, Any]) -> Iterator[str]:
    adapters = settings.get("adapters")
    if isinstance(adapters, Mapping):
        names = [name for name in adapters if not str(name).strip("_").startswith("global")]
        if names:
            yield f"a model with adapters ({', '.join(map(as_written, names[:3]))})"


def _tokenizer(section: SettingsPart) -> Iterator[str]:
    kind = section.get("type")
    if isinstance(kind, str) and kind.lower() == "agg":
        yield f"a model of several languages, with a tokenizer for each {section.quote('type')}"
    elif isinstance(kind, str) and kind.lower() == "wpe":
        yield f"a model of WordPiece tokens, without a SentencePiece tokenizer {section.quote('type')}"


def _features(section: SettingsPart) -> Iterator[str]:
    normalize = section.get("normalize", "per_feature")
    if section.present and normalize == "per_feature":
        yield f"per-feature normalization over the whole recording {section.quote('normalize', 'per_feature')}"
    elif section.present and (normalize == "all_features" or isinstance(normalize, Mapping)):
        yield f"normalization of the log-mel frames {section.quote('normalize')}"


def _encoder(section: SettingsPart) -> Iterator[str]:
    if not section.present:
        return
    attention = section.get("self_attention_model", "rel_pos")
    if attention == "rel_pos_local_attn":
        yield f"local attention {section.quote('self_attention_model')}"
    elif attention == "abs_pos":
        yield f"absolute positions {section.quote('self_attention_model')}"
    sizes = section.get("att_context_size")
    full = sizes is None or (isinstance(sizes, list) and any(number == -1 for number in _flat(sizes)))
    if full:
        yield f"attention with full context {section.quote('att_context_size')}"
    style = section.get("att_context_style", "regular")
    if style == "chunked_limited_with_rc":
        yield f"chunks with context on the right {section.quote('att_context_style')}"
    elif section.get("att_chunk_context_size") is not None:
        yield f"chunks with context on the right {section.quote('att_chunk_context_size')}"
    elif style == "regular" and attention == "rel_pos" and not full:
        yield f"attention that is not in chunks {section.quote('att_context_style', 'regular')}"
    if section.get("conv_norm_type", "batch_norm") == "batch_norm":
        yield f"batch normalization {section.quote('conv_norm_type', 'batch_norm')}"
    if section.get("conv_context_size") is None:
        yield f"convolutions that are not causal {section.quote('conv_context_size')}"
    if section.get("causal_downsampling", False) is False:
        yield f"subsampling that is not causal {section.quote('causal_downsampling', False)}"


def _flat(sizes: list[Any]) -> list[Any]:
    return [number for size in sizes for number in (size if isinstance(size, list) else [size])]


def _transducer(
    decoder: SettingsPart, joint: SettingsPart, decoding: SettingsPart, loss: SettingsPart
) -> Iterator[str]:
    target = decoder.get("_target_")
    if isinstance(target, str) and "Stateless" in target:
        yield f"a stateless prediction network {decoder.quote('_target_')}"
    for kind, losses, model_type, key in (
        ("TDT durations", DURATION_LOSSES, "tdt", "durations"),
        ("blanks of several frames", BIG_BLANK_LOSSES, "multiblank", "big_blank_durations"),
    ):
        if loss.get("loss_name") in losses:
            yield f"{kind} {loss.quote('loss_name')}"
        elif decoding.get("model_type") == model_type or decoding.get(key):
            yield f"{kind} {decoding.quote(key if decoding.get(key) else 'model_type')}"
    extra = joint.get("num_extra_outputs")
    if type(extra) is int and extra > 0:
        yield f"outputs beside the labels, as for TDT durations {joint.quote('num_extra_outputs')}"
