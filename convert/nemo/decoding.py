"""Reads the decoding section of NeMo's settings.

nemojax decodes greedily. It takes over the limit of labels per frame; what else would change NeMo's text is a note.
"""

from collections.abc import Container, Mapping
from typing import Any

from convert.sections import Section

GREEDY_STRATEGIES = ("greedy", "greedy_batch")
DEFAULT_MAX_SYMBOLS = 10  # NeMo's, without a section for greedy decoding
# for NeMo's "no limit": a model that has learned anything emits fewer labels in a frame of 80 ms
NO_LIMIT = 100

# what results hold, how they are shown, and how they are computed
SKIPPED = (
    *("beam", "model_type", "durations", "big_blank_durations", "compute_hypothesis_token_set", "preserve_alignments"),
    *("tdt_include_token_duration", "confidence_cfg", "compute_timestamps", "compute_langs", "word_seperator"),
    *("segment_seperators", "segment_gap_threshold", "rnnt_timestamp_type", "fused_batch_size", "lang_tag_pattern"),
    *("confidence_method_cfg", "confidence_measure_cfg", "preserve_frame_confidence", "return_best_hypothesis"),
)
GREEDY_SKIPPED = (
    *("preserve_alignments", "preserve_frame_confidence", "tdt_include_token_duration", "confidence_method_cfg"),
    *("tdt_include_duration_confidence", "compute_timestamps", "confidence_measure_cfg", "confidence_method"),
    *("loop_labels", "use_cuda_graph_decoder", "enable_per_stream_biasing"),
    *("ngram_lm_alpha", "boosting_tree_alpha"),  # they matter with a language model and with phrases only
)
PHRASES = ("model_path", "key_phrases_file", "key_phrases_list", "key_phrase_items_list")


def max_symbols(section: Section, skipped: Container[str] = ()) -> int:
    """Returns the maximum number of labels per frame; adds notes on what is left out."""
    strategy = section.values.get("strategy", "greedy_batch")
    section.skip(["strategy"])
    if strategy not in GREEDY_STRATEGIES:
        section.leave_out("strategy", "nemojax decodes greedily")
    if section.values.get("temperature", 1.0) not in (None, 1.0):
        section.leave_out("temperature", "it changes confidences, and no label")
    if section.values.get("strip_lang_tags"):
        section.leave_out("strip_lang_tags", "labels of languages stay in the text")
    section.skip(["temperature", "strip_lang_tags", *SKIPPED])
    _note_language_model(section.section("beam", optional=True), used=strategy not in GREEDY_STRATEGIES)
    greedy = section.section("greedy", optional=True)
    _note_language_model(greedy, used=strategy in GREEDY_STRATEGIES)
    greedy.skip(GREEDY_SKIPPED)
    limit = _limit(greedy, isinstance(section.values.get("greedy"), Mapping))
    greedy.ignore_rest(skipped)
    section.ignore_rest(skipped)
    return limit


def _limit(greedy: Section, present: bool) -> int:
    """Returns the limit that NeMo takes: the first of two settings that is neither absent, nor null, nor 0."""
    names = ("max_symbols", "max_symbols_per_step")
    greedy.skip(names)
    name = next((name for name in names if greedy.values.get(name)), None)
    if name is not None:
        limit: int = greedy.take(name, int, 1)
        greedy.require(name, limit >= 0, "it must be at least 1")
        return max(1, limit)
    if not present:
        greedy.notes.append(f"{greedy.where}{names[0]} is absent: {DEFAULT_MAX_SYMBOLS} labels per frame are assumed")
        return DEFAULT_MAX_SYMBOLS
    greedy.notes.append(f"{greedy.where}{names[0]}: no limit becomes {NO_LIMIT} labels per frame")
    return NO_LIMIT


def _note_language_model(section: Section, used: bool) -> None:
    """Adds notes on a language model and on phrases to prefer, if NeMo would use them."""
    section.skip(["ngram_lm_model", "boosting_tree"])
    if used and section.values.get("ngram_lm_model") is not None:
        section.leave_out("ngram_lm_model", "nemojax decodes without a language model")
    phrases: Any = section.values.get("boosting_tree")
    if used and isinstance(phrases, Mapping) and any(phrases.get(key) for key in PHRASES):
        section.notes.append(f"{section.where}boosting_tree is left out: nemojax prefers no phrases")
