"""Limits of what is read, which decide what is refused, and other constants on which results depend."""

from importlib import import_module

import pytest

LIMITS = {
    "nemojax.errors": {"MAX_SHOWN": 1000},
    "nemojax.config": {
        "MAX_LAYERS": 128,
        "MAX_SIZE": 131_072,
        "MAX_RATE_HZ": 1_000_000,
        "MAX_FILTER_VALUES": 4_194_304,
        "MAX_LISTED": 1000,
        "MAX_SHOWN": 60,
    },
    "nemojax.settings": {"MAX_SHOWN": 200, "MAX_NAMES": 8},
    "nemojax.checks": {"LONGEST_S": 1e9},
    "nemojax.checkpoint": {
        "MAX_BYTES": {
            "config.json": 2**23,
            "tokenizer.model": 2**24,
            "origin.json": 2**26,
        },
        "MAX_RATIO": 20,
        "MAX_EXTRA_BYTES": 2**26,
        "CONCURRENT_GB": 0.25,
    },
    "nemojax.compilation": {"NOTICE_S": 1.0, "KEPT_NOTICE_S": 3.0},
    "nemojax.warm": {"MAX_WORKERS": 8},
    "nemojax.streaming": {"MAX_SAMPLES": 2_147_483_647},
    "nemojax.audio.raw": {"MAX_CHANNELS": 64, "MAX_MEAN_STEP": 0.3, "MAX_MEAN": 0.2},
    "nemojax.audio.tar_shards": {"MAX_SHARD": 999_999_999},
    "nemojax.audio.shard_names": {"MAX_MANIFESTS": 10_000},
    "nemojax.audio.headers": {"MAX_CHUNKS": 10_000, "MAX_FORMAT_BYTES": 4096, "MIN_CONTINUATION_S": 0.1},
    "nemojax.audio.inputs": {"MAX_AMPLITUDE": 8},
    "nemojax.audio.source": {"ROUNDING_S": 0.01},
    "nemojax.audio.mp3": {"MAX_TAGS": 16},
    "nemojax.audio.ogg": {"MAX_PAGES": 3_000_000, "MAX_STREAMS": 10_000, "SEARCH_BYTES": 2**26},
    "nemojax.audio.manifest_entry": {
        "MAX_SECONDS": 1e9,
        "MAX_LINE_BYTES": 8_388_608,
        "MAX_DEPTH": 50,
        "MAX_TEXT_BYTES": 1_048_576,
    },
    "nemojax.audio.manifest": {"MAX_RATIO": 50, "MAX_EXTRA_BYTES": 2**26, "MAX_SKIPPED_BYTES": 268_435_456},
    "nemojax.audio.ffmpeg": {"STALL_S": 10.0, "MAX_ALLOCATION": str(2**28)},
    "nemojax.audio.pipes": {"MAX_COPY_BYTES": 2**31, "MAX_HEADER_BYTES": 2**26},
    "nemojax.audio.tar_index": {
        "MAX_HEADERS": 100_000,
        "BYTES_PER_HEADER": 2048,
        "MAX_EXTENSION_BYTES": 131_072,
        "MAX_EXTENSIONS": 8,
        "MAX_RECORDS": 200,
        "MAX_DIGITS": 20,
    },
    "nemojax.audio.decoders": {"MAX_JOINED": 10_000},
    "nemojax.cli.interrupts": {"REPEATED_S": 0.5},
    "nemojax.data.train_tokenizer": {"MAX_TEXT_BYTES": 65_536},
    "nemojax.data.validate": {"TOLERANCE_S": 0.05},
    "nemojax.data.corpus": {"MAX_NAMED": 5, "MIN_WEIGHT": 0.001, "JOINS_TRIED": 1000},
    "nemojax.data.buckets": {"LABELS_MULTIPLE": 8, "LABELS_QUANTILE": 0.98},
    "nemojax.data.plan": {"BATCH_FRAMES": 12_000},
    "nemojax.data.loading": {"BABBLE_VOICES": (3, 8)},
    "nemojax.data.pipeline": {"MAX_RESTARTS": 3, "CHECKED": 32, "MIN_TRIED": 32},
    "convert.errors": {"MAX_LISTED": 8, "MAX_REASON_CHARACTERS": 200, "MAX_MESSAGE": 1800},
    "convert.sections": {
        "MAX_SETTINGS_BYTES": 2**23,
        "MAX_YAML_NODES": 250_000,
        "MAX_DIGITS": 1000,
        "MAX_NUMBER": 131_072,
    },
    "convert.pieces": {"MAX_MODEL_BYTES": 2**24, "MAX_PIECES": 131_072},
    "convert.stablehlo": {"MAX_STEP_BYTES": 2**31 - 2**24},
    "convert.nemo.torch_format": {"MAX_DIRECTORY_BYTES": 2**23, "MAX_ENTRIES": 100_000},
    "convert.nemo.torch_pickle": {"MAX_DESCRIPTION_BYTES": 2**21, "MAX_DIMENSIONS": 8},
    "convert.nemo.archive": {
        "MAX_MEMBERS": 1000,
        "MAX_HEADER_BYTES": 2**22,
        "MAX_RATIO": 20,
        "MAX_EXTRA_BYTES": 2**26,
        "MAX_XZ_BYTES": 2**28,
    },
    "convert.huggingface.checkpoint": {"MAX_SHARDS": 256},
    "nemojax.safetensors_format": {"MAX_HEADER_BYTES": 2**22, "MAX_DIMENSIONS": 8, "MAX_LENGTH": 2**62},
}


@pytest.mark.parametrize("module", LIMITS)
def test_limits(module):
    limits = LIMITS[module]
    assert {name: getattr(import_module(module), name) for name in limits} == limits
