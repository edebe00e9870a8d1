"""Damage anywhere in a checkpoint gives the same conversion or a ConvertError, and nothing else, in short time."""

import io
import json
import zipfile
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert import huggingface, nemo
from convert.errors import ConvertError
from convert.huggingface import safetensors_file, tokenizer_json
from convert.nemo import torch_format
from convert.pieces import pieces
from convert.sections import read_json
from nemojax import safetensors_format
from tests.convert import fuzzing
from tests.convert.fuzzing import check
from tests.convert.samples import (
    SMALLEST,
    arrays,
    converted,
    file_of,
    nemo_members,
    rezipped,
    tar,
    theirs,
    tokenizer,
    torch_bytes,
)
from tests.convert.samples import settings as samples_settings

fuzzed = fuzzing.fuzzed(300, deadline_ms=2000)


@st.composite
def damage(draw, data: bytes) -> bytes:
    """Draws one to three changes: a flipped bit, a cut, or bytes that are zeroed, repeated, moved or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        size = draw(st.integers(1, 64))
        match draw(st.sampled_from(["flip", "cut", "zero", "repeat", "move", "noise"])):
            case "flip":
                data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "zero":
                data = data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
            case "repeat":
                data = data[: at + size] + data[at:]
            case "move":
                to = draw(st.integers(0, len(data) - 1))
                data = data[:to] + data[at : at + size] + data[to:]
            case "noise":
                data = data[:at] + draw(st.binary(max_size=16)) + data[at + size :]
    return data


@cache
def archive() -> bytes:
    members = nemo_members(SMALLEST)
    return tar({"model_weights.ckpt": members.pop("model_weights.ckpt")} | members)


@cache
def expected() -> dict[str, np.ndarray]:
    return arrays(SMALLEST)


def converts(path, identical: bool = True) -> None:
    """Reads all tensors of a .nemo file; the only error may be a ConvertError."""
    try:
        source = nemo.read(path)
        found = source.arrays
    except ConvertError as error:
        assert 0 < len(str(error)) < 2000 and "\n" not in str(error)
        return
    if identical:
        assert source.config == converted(SMALLEST) and source.tokenizer == tokenizer(SMALLEST.vocabulary)
        assert all(np.array_equal(found[name], array) for name, array in expected().items())


def test_the_archive_without_damage(tmp_path):
    (tmp_path / "good.nemo").write_bytes(archive())
    assert nemo.read(tmp_path / "good.nemo").config == converted(SMALLEST)
    converts(tmp_path / "good.nemo")


@fuzzed
@given(st.data())
def test_damage_before_the_settings(tmp_path, data):
    """Headers and weights: every bit is covered by a checksum or has no effect."""
    whole = archive()
    end = whole.index(b"model_config.yaml")
    path = tmp_path / "model.nemo"
    path.write_bytes(data.draw(damage(whole[:end])) + whole[end:])
    converts(path)


@fuzzed
@given(st.data())
def test_damage_anywhere(tmp_path, data):
    """Settings and tokenizer have no checksum, so damage may give another conversion."""
    path = tmp_path / "model.nemo"
    path.write_bytes(data.draw(damage(archive())))
    converts(path, identical=False)


@pytest.mark.parametrize("part", range(16))
def test_cut_anywhere(tmp_path, part):
    """Every archive cut short is refused, up to the padding after its end."""
    whole = archive()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    path = tmp_path / "model.nemo"
    for cut in range(part * 61, end + 1023, 16 * 61):
        path.write_bytes(whole[:cut])
        with pytest.raises(ConvertError):
            nemo.read(path)


@cache
def weights() -> tuple[bytes, bytes]:
    data = torch_bytes(theirs(SMALLEST, "nemo"))
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        return data, made.read("archive/data.pkl")


@cache
def settings_file() -> bytes:
    return nemo.recipe.dump(samples_settings(SMALLEST))


@fuzzed
@given(st.data())
def test_damaged_descriptions_behind_good_checksums(data):
    whole, description = weights()
    made = rezipped(whole, {"data.pkl": data.draw(damage(description))})
    check(lambda: [np.asarray(tensor) for tensor in torch_format.read(file_of(made)).values()])


@fuzzed
@given(st.data())
def test_damaged_zips(data):
    made = data.draw(damage(weights()[0]))
    check(lambda: [np.asarray(tensor) for tensor in torch_format.read(file_of(made)).values()])


@fuzzed
@given(st.data())
def test_damaged_safetensors(data):
    target, tensors = io.BytesIO(), {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}
    safetensors_format.write(target, tensors.items(), tensors)
    made = data.draw(damage(target.getvalue()))
    check(lambda: [np.asarray(tensor) for tensor in safetensors_file.read(file_of(made)).values()])


@fuzzed
@given(st.data())
def test_damaged_settings_of_nemo(data):
    damaged = data.draw(damage(settings_file()))

    def read() -> None:
        parsed = nemo.settings.parse(damaged)
        check(lambda: nemo.settings.to_config(parsed, 30))
        check(lambda: nemo.settings.tokenizer_member(parsed))

    check(read)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)


def with_value(settings, data):
    """Returns settings with one value, at any depth, replaced by any JSON value."""
    made = json.loads(json.dumps(settings))
    place = made
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            return made
        place = place[key]


@fuzzed
@given(st.data())
def test_settings_of_nemo_with_any_value(data):
    made = with_value(samples_settings(SMALLEST), data)
    check(lambda: nemo.settings.to_config(made, 30))
    check(lambda: nemo.settings.tokenizer_member(made))


@fuzzed
@given(st.data())
def test_settings_of_transformers_with_any_value(data):
    settings = huggingface.settings.to_settings(SMALLEST, "float32", 0)
    processor = huggingface.settings.to_processor(SMALLEST)
    check(lambda: huggingface.settings.to_config(with_value(settings, data), processor, None))
    check(lambda: huggingface.settings.to_config(settings, with_value(processor, data), None))
    check(lambda: huggingface.settings.to_config(settings, None, data.draw(JSON)))


@fuzzed
@given(st.data())
def test_tokenizers_with_any_value(data):
    made = with_value(tokenizer_json.to_json(tokenizer(30)), data)
    check(lambda: tokenizer_json.from_json(made, 30))


@fuzzed
@given(st.data())
def test_damaged_json(data):
    made = data.draw(damage(json.dumps(huggingface.settings.to_settings(SMALLEST, "float32", 0)).encode()))
    check(lambda: huggingface.settings.to_config(read_json(made, "config.json"), None, None))


@fuzzed
@given(st.data())
def test_damaged_sentencepiece_models(data):
    made = data.draw(damage(tokenizer(30)))
    check(lambda: pieces(made))
