"""What the converters read is what torch reads, and what they write NeMo and transformers load: to the bit."""

import collections
import tarfile
from functools import partial

import ml_dtypes
import numpy as np
import pytest

from convert.__main__ import main
from convert.errors import ConvertError
from convert.files import open_file
from convert.huggingface import checkpoint as huggingface
from convert.huggingface import tokenizer_json
from convert.nemo import checkpoint as nemo
from convert.nemo import torch_format
from convert.nemo.archive import open_nemo
from nemojax import checkpoint
from nemojax.model.parameters import fill
from nemojax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.parity


def run(*arguments) -> None:
    main([*map(str, arguments)])


@pytest.fixture(scope="module")
def converted(pair, tmp_path_factory):
    """The native form of NeMo's archive, and what is written of it for NeMo and for transformers."""
    folder = tmp_path_factory.mktemp("written")
    run("nemo", pair.archive, folder / "native")
    run("to-nemo", folder / "native", folder / "back.nemo")
    run("to-hf", folder / "native", folder / "hf")
    run("hf", folder / "hf", folder / "second")
    run("to-nemo", folder / "second", folder / "second.nemo")
    return folder


def state_dict(archive) -> dict:
    """The weights of a .nemo archive as torch loads them, with its own restrictions on."""
    import torch

    with tarfile.open(archive) as tar:
        member = next(info for info in tar if info.name.endswith("model_weights.ckpt"))
        return torch.load(tar.extractfile(member), weights_only=True)


def assert_same_state(found: dict, expected: dict) -> None:
    import torch

    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_weights_are_read_as_torch_reads_them(pair):
    found = torch_format.read(open_nemo(pair.archive)["model_weights.ckpt"])
    expected = state_dict(pair.archive)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), tensor.numpy(), err_msg=name)


def test_there_and_back(pair, converted):
    assert sorted(state_dict(converted / "back.nemo")) == sorted(state_dict(pair.archive))
    expected = pair.nemo.model.state_dict()
    for archive in ("back.nemo", "second.nemo"):
        found = state_dict(converted / archive)
        for name, tensor in expected.items():
            if archive == "back.nemo" or not name.startswith("preprocessor."):
                assert bool((found[name] == tensor).all()), f"{archive}: {name}"
    one, two = (checkpoint.load(converted / name) for name in ("native", "second"))
    assert one[1] == two[1] and one[2] == two[2]  # settings and tokenizer


@pytest.mark.parametrize("archive", ["back.nemo", "second.nemo"])
def test_nemo_transcribes_with_what_was_written(pair, converted, archive, tmp_path):
    import soundfile
    from nemo.collections.asr.models import ASRModel
    from omegaconf import OmegaConf

    model = ASRModel.restore_from(str(converted / archive), map_location="cpu").eval()
    assert type(model) is type(pair.nemo.model)
    expected = pair.nemo.model.state_dict()
    if archive == "back.nemo":
        assert_same_state(model.state_dict(), expected)
    samples = [*pair.recordings(13).values()][:3]
    files = [str(tmp_path / f"{index}.wav") for index in range(len(samples))]
    for file, recording in zip(files, samples, strict=True):
        soundfile.write(file, recording, 16_000, subtype="FLOAT")
    # of files, for which NeMo needs settings of a data set for validation
    texts = [hypothesis.text for hypothesis in model.transcribe(files, batch_size=1, verbose=False)]
    pair.nemo.model.encoder.set_default_att_context_size(model.encoder.att_context_size)  # other tests set others
    OmegaConf.update(pair.nemo.model.cfg, "validation_ds", model.cfg.validation_ds, force_add=True)
    assert texts == [h.text for h in pair.nemo.model.transcribe(files, batch_size=1, verbose=False)] and any(texts)


def test_transformers_loads_what_was_written(pair, converted):
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForRNNT, AutoProcessor, AutoTokenizer, pipeline

    directory = converted / "hf"
    model = AutoModelForRNNT.from_pretrained(directory, attn_implementation="sdpa").eval()
    assert type(model) is type(pair.transformers.model)
    assert_same_state(model.state_dict(), pair.transformers.model.state_dict())
    expected, found = pair.transformers.model.config.to_dict(), model.config.to_dict()
    elsewhere = {"_name_or_path", "architectures", "dtype", "transformers_version", "encoder_config", "pad_token_id"}
    training = {"layerdrop", "activation_dropout", "dropout", "attention_dropout"}
    for one, other in ((found, expected), (found["encoder_config"], expected["encoder_config"])):
        for key in other.keys() - elsewhere - training:
            assert one[key] == other[key], key

    processor, tokenizer = AutoProcessor.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    assert processor.supported_num_lookahead_tokens == list(pair.source.config.encoder.lookaheads)
    assert AutoFeatureExtractor.from_pretrained(directory).feature_size == pair.source.config.features.mel_bins
    ours = Tokenizer((directory / "tokenizer.model").read_bytes())
    recognize = pipeline("automatic-speech-recognition", model=str(directory))
    for name, samples in (pair.speech | pair.recordings(13)).items():
        samples = samples[: 16_000 * 4]
        with torch.no_grad():
            output = model.generate(**processor(samples, sampling_rate=16_000))
        labels = [label for label in output.sequences[0].tolist() if label != model.config.blank_token_id]
        text = processor.decode(output.sequences[0], skip_special_tokens=True)
        assert text == tokenizer.decode(labels, group_tokens=False) == ours.decode(labels), name
        assert recognize({"raw": samples, "sampling_rate": 16_000})["text"] == text, name
        if text:  # random weights may have none for a recording
            return
    pytest.fail("no recording has text")


@pytest.fixture(scope="module")
def their_tokenizer(pair, tmp_path_factory):
    """tokenizer.json as transformers' own converter makes it."""
    from tokenizers import AddedToken
    from transformers import ParakeetTokenizer
    from transformers.convert_slow_tokenizer import ParakeetConverter

    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(pair.source.tokenizer)
    made = ParakeetTokenizer(
        tokenizer_object=ParakeetConverter(str(folder / "tokenizer.model")).converted(),
        clean_up_tokenization_spaces=False,
    )
    tokens = [AddedToken(name, normalized=False, special=True) for name in ("<unk>", "<pad>", "<blank>")]
    made.add_tokens(tokens[1:])
    made.add_special_tokens({"unk_token": tokens[0], "pad_token": tokens[1]})
    made.save_pretrained(folder)
    return made, folder


def test_tokenizers_are_transformers_own(pair, converted, their_tokenizer):
    from transformers import AutoTokenizer

    theirs, folder = their_tokenizer
    ours = AutoTokenizer.from_pretrained(converted / "hf")
    assert ours.get_vocab() == theirs.get_vocab()
    model, notes = tokenizer_json.from_json(huggingface._json(folder, "tokenizer.json"), pair.source.config.vocabulary)
    assert notes == []
    native, original = Tokenizer(model), Tokenizer(pair.source.tokenizer)
    rng = np.random.default_rng(pair.seed)
    for length in rng.integers(0, 30, 300):
        labels = rng.integers(0, pair.source.config.vocabulary, length).tolist()
        text = theirs.decode(labels, skip_special_tokens=True, group_tokens=False)
        written = ours.decode(labels, skip_special_tokens=True, group_tokens=False)
        assert native.decode(labels) == text
        assert original.decode(labels) == written == text.lstrip(" ")  # none shows the unknown piece
    for text in ("Hello, world!", "it's  a fine   day; isn't it? ", "", "ümläut 42", "the the the"):
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("shard", [None, "100KB"])
def test_what_transformers_saved_is_read(pair, converted, their_tokenizer, tmp_path, shard):
    options = {} if shard is None else {"max_shard_size": shard}
    pair.transformers.model.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() == (shard is None)
    their_tokenizer[0].save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text((converted / "hf" / "processor_config.json").read_text())
    source = huggingface.read(tmp_path)
    assert source.notes == [] and source.config.encoder.lookaheads == pair.source.config.encoder.lookaheads
    for name, array in pair.source.arrays.items():
        np.testing.assert_array_equal(source.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision(pair, tmp_path, dtype):
    """Types are kept, and rounding is torch's."""
    import torch
    from safetensors.torch import load_file

    kind = getattr(torch, np.dtype(dtype).name)
    half = {key: tensor.to(kind) for key, tensor in pair.transformers.model.state_dict().items()}
    source = nemo.read(pair.archive)
    arrays = {key: array.astype(dtype) for key, array in source.arrays.items()}
    checkpoint.save(tmp_path / "half", fill(source.config, arrays), source.tokenizer, source.origin)
    huggingface.write(tmp_path / "half", tmp_path / "hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == half.keys() and all(torch.equal(found[key], half[key]) for key in half)
    nemo.write(tmp_path / "half", tmp_path / "half.nemo")
    written = state_dict(tmp_path / "half.nemo")
    assert written["joint.enc.weight"].dtype == kind
    assert torch.equal(written["joint.enc.weight"], half["encoder_projector.weight"])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_else_torch_can_save(tmp_path, zipped, protocol):
    """Views, parameters, empty and scalar tensors, all types; and what is not a dictionary of tensors."""
    import torch

    # not zipped: the format from before torch 1.6
    save = partial(torch.save, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    base = torch.randn(4, 6, 3)
    kinds = [torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.bfloat16]
    good = {
        "base": base,
        "view": base[1:3, ::2].permute(2, 0, 1),
        "parameter": torch.nn.Parameter(base[0]),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(2, 0),
        **{str(kind): torch.randn(5).to(kind) for kind in kinds},
    }
    for name, content in {"dict": good, "ordered": collections.OrderedDict(good)}.items():
        save(content, tmp_path / name)
        found = torch_format.read(open_file(tmp_path / name))
        for key, tensor in good.items():
            expected = tensor.detach()
            expected = expected.view(torch.int16) if expected.dtype == torch.bfloat16 else expected
            array = np.asarray(found[key])
            array = array.view(np.int16) if key == "torch.bfloat16" else array
            np.testing.assert_array_equal(array, expected.numpy(), err_msg=key)
    module = torch.nn.Linear(2, 2)
    bad = {
        "module": module,
        "nested": {"state_dict": module.state_dict(), "epoch": 3},
        "list": [base],
        "sparse": {"w": torch.eye(3).to_sparse()},
        "quantized": {"w": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)},
        "complex": {"w": torch.randn(2, dtype=torch.complex64)},
        "numpy": {"w": np.ones(3)},
    }
    for name, content in bad.items():
        save(content, tmp_path / name)
        with pytest.raises(ConvertError):
            torch_format.read(open_file(tmp_path / name))
    torch.jit.script(module).save(str(tmp_path / "script"))
    with pytest.raises(ConvertError, match="no place in a state dict"):
        torch_format.read(open_file(tmp_path / "script"))
