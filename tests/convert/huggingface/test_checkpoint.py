import hashlib
import json

import ml_dtypes
import numpy as np
import pytest

from convert import huggingface, nemo
from convert.errors import ConvertError
from convert.huggingface import tokenizer_json
from convert.pieces import empty_model
from nemojax import checkpoint
from nemojax.config import TextConfig
from nemojax.model.parameters import named_parameters
from nemojax.text.tokenizer import Tokenizer
from tests.convert.nemo.test_checkpoint import same, save
from tests.convert.samples import CONFIG, FAMILY, arrays, converted, theirs, tokenizer
from tests.helpers.messages import ending, is_message, whole


def test_read(huggingface_directory):
    directory = huggingface_directory()
    source = huggingface.read(directory)
    assert source.config == converted(CONFIG) and source.notes == [] and same(source.arrays, arrays(CONFIG))
    assert Tokenizer(source.tokenizer).decode([1, 2, 20]) == Tokenizer(tokenizer(40)).decode([1, 2, 20])
    weights = (directory / "model.safetensors").read_bytes()
    assert source.origin["format"] == "huggingface"
    assert source.origin["files"] == {"model.safetensors": hashlib.sha256(weights).hexdigest()}


def test_tokenizer_model_takes_precedence_over_tokenizer_json(huggingface_directory):
    model = tokenizer(40, user_defined=(3,))
    assert huggingface.read(huggingface_directory(**{"tokenizer.model": model})).tokenizer == model


def test_notes_name_assumed_settings(huggingface_directory):
    source = huggingface.read(huggingface_directory(**{"processor_config.json": None}))
    assert source.config == converted(CONFIG)
    assert source.notes == [
        "no processor_config.json: look-aheads 13, 6, 1, 0 are assumed",
        "no settings of the feature extractor: transformers' defaults are assumed",
    ]


@pytest.mark.parametrize(
    "files,message",
    [
        ({"config.json": None}, "has no config.json"),
        ({"config.json": "{"}, "config.json is not JSON: "),
        ({"config.json": "[" * 100_000}, "config.json is nested too deeply"),
        ({"config.json": '{"a": ' + "9" * 5000 + "}"}, "config.json is not JSON: "),
        ({"processor_config.json": "[]"}, "processor_config.json: the file must be a mapping, not []"),
        ({"tokenizer.json": None}, "has neither tokenizer.model nor tokenizer.json"),
        ({"tokenizer.json": "{}"}, "tokenizer.json is not a tokenizer of byte pairs or unigrams: 'model'"),
        (
            {"tokenizer.json": json.dumps(tokenizer_json.to_json(tokenizer(37)))},
            "tokenizer.json has no piece 39, the model has 40 pieces",
        ),
        ({"tokenizer.model": tokenizer(39)}, "the tokenizer has 39 pieces, config.json requires 40 and blank"),
        ({"tokenizer.model": tokenizer(41)}, "the tokenizer has 41 pieces, config.json requires 40 and blank"),
        (
            {"tokenizer.model": b"x"},
            "tokenizer.model is not a SentencePiece model: ",
        ),
        (
            {"model.safetensors": None},
            (
                "has neither model.safetensors nor model.safetensors.index.json; other formats of "
                "weights are not supported"
            ),
        ),
        ({"model.safetensors": b"\3"}, "model.safetensors is not a safetensors file, or is cut short in its header"),
        ({"model.safetensors.index.json": "{}"}, "model.safetensors.index.json has no weight_map of files"),
    ],
)
def test_directories_that_are_not_checkpoints(huggingface_directory, files, message):
    directory = huggingface_directory(**files)
    with pytest.raises(ConvertError) as caught:
        huggingface.read(directory)
    assert is_message(caught.value, f"{directory}: {message}")


def test_a_claimed_vocabulary_that_is_too_large(huggingface_directory):
    settings = huggingface.settings.to_settings(CONFIG, "float32", 0) | {"vocab_size": 1 << 17}
    settings["blank_token_id"] = (1 << 17) - 1
    with pytest.raises(ConvertError, match=ending(": tokenizer.json has no piece 42, the model has 131071 pieces")):
        huggingface.read(huggingface_directory(**{"config.json": json.dumps(settings)}))


def test_tensors_that_do_not_fit(huggingface_directory):
    tensors = theirs(CONFIG, "huggingface")
    tensors["extra"] = tensors.pop("joint.head.bias")
    with pytest.raises(
        ConvertError,
        match=ending(
            ": the tensors do not fit the settings: joint.head.bias is missing; 'extra' is not a tensor of this model"
        ),
    ):
        huggingface.read(huggingface_directory(tensors=tensors))


def test_round_trip_is_the_identity(huggingface_directory, tmp_path):
    settings = huggingface.settings.to_settings(CONFIG, "float32", 0) | {"initializer_range": 0.5}
    settings["encoder_config"]["layerdrop"] = 0.3
    first = huggingface_directory(**{"config.json": json.dumps(settings)})
    huggingface.write(save(huggingface.read(first), tmp_path / "native"), tmp_path / "back")
    for name in ("config.json", "processor_config.json"):
        assert json.loads((tmp_path / "back" / name).read_text()) == json.loads((first / name).read_text())
    assert same(huggingface.read(tmp_path / "back").arrays, arrays(CONFIG))
    back, original = (json.loads((d / "tokenizer.json").read_text()) for d in (tmp_path / "back", first))
    assert back["model"] == original["model"] and back["added_tokens"] == original["added_tokens"]


def test_write_without_an_origin(native, tmp_path):
    huggingface.write(native(dtype=ml_dtypes.bfloat16), tmp_path / "made")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    source = huggingface.read(tmp_path / "made")
    assert source.config == converted(CONFIG) and source.tokenizer == tokenizer(40)
    assert same(source.arrays, arrays(CONFIG, dtype=ml_dtypes.bfloat16))
    expected = huggingface.settings.to_settings(CONFIG, "bfloat16", 0)
    assert json.loads((tmp_path / "made" / "config.json").read_text()) == expected
    assert json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())["unk_token"] == "<unk>"


def test_type_and_special_labels_in_the_settings(huggingface_directory, tmp_path):
    """The type is that of the largest tensor, also if the settings came with the weights."""
    tensors = theirs(CONFIG, "huggingface", dtype=ml_dtypes.bfloat16)
    tensors |= {name: array.astype(np.float32) for name, array in tensors.items() if array.ndim == 1}
    source = huggingface.read(huggingface_directory(tensors=tensors))
    preserved = save(source, tmp_path / "preserved")
    checkpoint.save(tmp_path / "new", source.model(), source.tokenizer, {})
    for name, directory in {"a": preserved, "b": tmp_path / "new"}.items():
        huggingface.write(directory, tmp_path / name)
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == "bfloat16"
        generation = json.loads((tmp_path / name / "generation_config.json").read_text())
        assert generation == {"decoder_start_token_id": CONFIG.blank, "pad_token_id": 0}


def test_a_padding_piece_of_the_tokenizer_is_named(native, tmp_path):
    proto = empty_model()
    proto.ParseFromString(tokenizer(40))
    proto.pieces[7].piece, proto.pieces[7].type = "<pad>", 3
    sizes, new_directory = [], huggingface.checkpoint.new_directory
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda path, size: sizes.append(size) or new_directory(path, size)
        patch.setattr(huggingface.checkpoint, "new_directory", keep)
        config = huggingface.write(native(model=proto.SerializeToString(), dtype=np.float16), tmp_path / "made")
    assert config == CONFIG and sizes == [2 * sum(array.size for array in arrays(CONFIG).values())]
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "made" / name).read_text())["pad_token_id"] == 7


def test_a_model_that_transformers_can_not_express(native, tmp_path):
    directory = native(config=FAMILY)
    with pytest.raises(
        ConvertError, match=whole("transformers has one width for the prediction and the joint network, not 12 and 8")
    ):
        huggingface.write(directory, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_preserved_settings_of_another_model_are_not_used(native, tmp_path):
    settings = huggingface.settings.to_settings(CONFIG, "float32", 0)
    settings["encoder_config"]["num_attention_heads"] = 2
    huggingface.write(
        native(origin={"format": "huggingface", "kept": {"settings": json.dumps(settings)}}), tmp_path / "x"
    )
    assert huggingface.read(tmp_path / "x").config == converted(CONFIG)


def test_places_that_are_not_files_or_directories(tmp_path, huggingface_directory):
    (tmp_path / "file").write_bytes(b"x")
    for name in ("none", "file"):
        with pytest.raises(ConvertError, match=whole(f"{tmp_path / name} is not a directory")):
            huggingface.read(tmp_path / name)
    weights = huggingface_directory() / "model.safetensors"
    weights.unlink()
    weights.mkdir()
    with pytest.raises(ConvertError, match=whole(f"{weights.parent}: {weights} is a directory")):
        huggingface.read(weights.parent)


def test_between_the_two_forms(nemo_file, tmp_path):
    """NeMo to native to Hugging Face to native to NeMo returns the same tensors, settings and tokenizer."""
    native = save(nemo.read(nemo_file()), tmp_path / "one")
    huggingface.write(native, tmp_path / "there")
    nemo.write(save(huggingface.read(tmp_path / "there"), tmp_path / "two"), tmp_path / "back.nemo")
    back = nemo.read(tmp_path / "back.nemo")
    assert same(back.arrays, arrays(CONFIG)) and back.config == converted(CONFIG) and back.tokenizer == tokenizer(40)
    assert same(
        {k: np.asarray(v) for k, v in named_parameters(checkpoint.load(tmp_path / "two")[0]).items()},
        arrays(CONFIG),
    )


def test_one_model_has_one_text(nemo_file, tmp_path):
    """Whichever file it came from: events are named, punctuation is joined, and the unknown piece has no text."""
    model = tokenizer(CONFIG.vocabulary)
    proto = empty_model()
    proto.ParseFromString(model)
    proto.pieces[30].piece, proto.pieces[31].piece, proto.pieces[32].piece = "<EOU>", "<EOB>", "."
    model = proto.SerializeToString()
    first = save(nemo.read(nemo_file(tokenizer=model)), tmp_path / "one")
    huggingface.write(first, tmp_path / "there")
    (tmp_path / "there" / "tokenizer.model").unlink()  # as in the release: there is tokenizer.json alone
    second = save(huggingface.read(tmp_path / "there"), tmp_path / "two")
    expected = TextConfig(("<EOU>", "<EOB>"), join_punctuation=True)
    texts = []
    for directory in (first, second):
        config, stored, _ = checkpoint.read_settings(directory)
        assert config.text == expected
        used = Tokenizer(stored, config.text)
        labels = [1, 0, 23, 32, 30, 31]  # a pair of letters, unknown, a space, a point, both events
        texts.append(used.decode(labels))
        assert [used.event(label) for label in labels[-3:]] == [None, "<EOU>", "<EOB>"]
    assert texts[0] == texts[1] and texts[0].endswith(".") and " ." not in texts[0] and "unk" not in texts[0]


def test_an_adapter_beside_the_weights(huggingface_directory):
    """transformers would load it; the weights alone are another model."""
    directory = huggingface_directory(**{"adapter_config.json": "{}"})
    with pytest.raises(ConvertError, match=r"has an adapter \(adapter_config\.json\).*merge it into the weights"):
        huggingface.read(directory)
