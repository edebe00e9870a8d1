"""Hugging Face directories made at random: each is read or refused in one line, within time and memory.

Damage to a good file is in test_hostile.py. Here files are put together from the parts that readers have special cases
for.
"""

import io
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from convert import huggingface
from convert.huggingface import safetensors_file, tokenizer_json
from convert.pieces import pieces
from nemojax import safetensors_format
from nemojax.errors import TokenizerError
from nemojax.text.tokenizer import Tokenizer
from tests.convert import fuzzing
from tests.convert.fuzzing import check
from tests.convert.samples import SMALLEST, file_of, theirs, tokenizer

pytestmark = pytest.mark.slow

MAX_BYTES = 1_000_000_000  # of Python objects for one refusal
fuzzed = fuzzing.fuzzed(500)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_BYTES


NUMBERS = st.one_of(
    *(st.integers(-2, 50), st.integers(), st.floats(), st.booleans(), st.none()),
    st.sampled_from([10**400, 10**4000, 1 << 63, -(1 << 63), 1 << 31]),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["\ud800", "a\0b", "two\nlines", "n" * 5000, "__metadata__", "<unk>", "<0x0A>", "▁", "relu", "../x"]
    ),
)
VALUES = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def changed(data, values):
    """Returns JSON values of which up to four, at any depth, are replaced, added or removed."""
    made = json.loads(json.dumps(values))
    for _ in range(data.draw(st.integers(1, 4))):
        place = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys)) if keys else "new"
            if keys and isinstance(place[key], dict | list) and data.draw(st.integers(0, 3)):
                place = place[key]
                continue
            break
        if isinstance(place, list):
            place.append(data.draw(VALUES))
        elif data.draw(st.booleans()):
            place.pop(key, None)
        else:
            place[key if data.draw(st.booleans()) else data.draw(TEXTS)] = data.draw(VALUES)
    return made


def dump(values) -> bytes:
    """Writes JSON in ASCII, so that half of a surrogate pair can be written."""
    return json.dumps(values).encode()


ENTRIES = st.dictionaries(
    TEXTS,
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "f32", "U8"]),
                "shape": st.lists(st.integers(0, 3) | NUMBERS, max_size=10),
                "data_offsets": st.lists(st.integers(0, 60) | NUMBERS, min_size=1, max_size=3),
            }
        ),
    ),
    max_size=6,
)


@fuzzed
@given(ENTRIES, st.integers(0, 60), st.sampled_from([0, 0, 0, 1, -1, 1 << 40]))
def test_headers_of_safetensors(entries, size, error):
    header = dump(entries)
    made = max(0, len(header) + error).to_bytes(8, "little") + header + bytes(size)
    check(lambda: [np.asarray(tensor) for tensor in safetensors_file.read(file_of(made)).values()])


@settings(fuzzed, max_examples=150)
@given(st.data())
def test_directories_with_other_values(tmp_path, data):
    tensors = theirs(SMALLEST, "huggingface")
    target = io.BytesIO()
    safetensors_format.write(target, tensors.items(), tensors)
    files = {
        "config.json": huggingface.settings.to_settings(SMALLEST, "float32", 0),
        "processor_config.json": huggingface.settings.to_processor(SMALLEST),
        "tokenizer.json": tokenizer_json.to_json(tokenizer(SMALLEST.vocabulary)),
        "model.safetensors.index.json": {"weight_map": dict.fromkeys(tensors, "model.safetensors")},
    }
    altered = data.draw(st.sampled_from(list(files)))
    (tmp_path / "model.safetensors").write_bytes(target.getvalue())
    for name, values in files.items():
        (tmp_path / name).write_bytes(dump(changed(data, values) if name == altered else values))
    check(lambda: huggingface.read(tmp_path).arrays)


PIECES = st.lists(
    st.tuples(TEXTS.filter(lambda text: "\ud800" not in text), st.floats(width=32), st.integers(1, 6)), max_size=40
)
OPTIONS = st.fixed_dictionaries(
    {
        "model_type": st.sampled_from([1, 2, 3, 4]),
        "byte_fallback": st.booleans(),
        "unk_id": st.integers(-2, 3),
        "treat_whitespace_as_suffix": st.booleans(),
    }
)


@fuzzed
@given(PIECES, OPTIONS, st.binary(max_size=40), st.lists(st.integers(-2, 40), max_size=8))
def test_sentencepiece_models(made, options, charsmap, labels):
    """A model that is accepted turns every list of its labels into text, and text into labels."""
    proto = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in made:
        proto.pieces.add(piece=text, score=score, type=kind)
    for name, value in options.items():
        setattr(proto.trainer_spec, name, value)
    proto.normalizer_spec.precompiled_charsmap = charsmap
    model = proto.SerializeToString()

    def read() -> None:
        count = len(pieces(model))
        try:
            used = Tokenizer(model)
        except TokenizerError:
            return
        assert used.size == count
        used.encode(used.decode([label for label in labels if 0 <= label < count]))

    check(read)


def test_many_tensors_many_files_many_pieces(tmp_path):
    """Sizes that would take minutes or gigabytes are refused by a count, or by a size of the file."""
    entries = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(40_000)}
    header = dump(entries)
    check(lambda: safetensors_file.read(file_of(len(header).to_bytes(8, "little") + header)))
    check(lambda: safetensors_file.read(file_of((95 << 20).to_bytes(8, "little") + b"{" + b" " * (95 << 20))))
    piece = sentencepiece_model_pb2.ModelProto()
    piece.pieces.add(piece="a")
    check(lambda: pieces(piece.SerializeToString() * 1_000_000))
    config = huggingface.settings.to_settings(SMALLEST, "float32", 0)
    config["encoder_config"]["num_hidden_layers"] = 10_000
    (tmp_path / "config.json").write_bytes(dump(config))
    (tmp_path / "tokenizer.model").write_bytes(tokenizer(SMALLEST.vocabulary))
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    check(lambda: huggingface.read(tmp_path))
