"""Makes small checkpoints in every form, without torch, NeMo and transformers."""

import dataclasses
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from convert import names, nemo
from convert.files import FilePart, open_file
from convert.nemo import torch_format
from convert.pieces import pieces
from nemojax.config import PRESETS, EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig, TextConfig
from nemojax.model.parameters import abstract_model, named_parameters

TINY = PRESETS["tiny"]
# every mechanism of the release; prediction and joint have one width, as transformers requires
CONFIG = dataclasses.replace(TINY, joint=JointConfig(width=24), vocabulary=40)
# every mechanism of the family's 114M models; the joint has another width
FAMILY = ModelConfig(
    features=FeatureConfig(mel_bins=80),
    encoder=EncoderConfig(
        layers=1,
        width=16,
        heads=2,
        feedforward_width=32,
        subsampling_channels=4,
        left_context_frames=28,
        lookaheads=(6, 0),
        use_bias=True,
        scale_input=True,
    ),
    prediction=PredictionConfig(width=12, layers=1),
    joint=JointConfig(width=8),
    vocabulary=40,
)
# no value is a default, of ours or of another toolkit, as far as a round trip through transformers allows it
UNUSUAL = ModelConfig(
    FeatureConfig(window_samples=320, hop_samples=80, fft_samples=1024, mel_bins=40, preemphasis=0.5),
    EncoderConfig(
        layers=3,
        width=24,
        heads=6,
        feedforward_width=72,
        subsampling_channels=5,
        convolution_kernel=7,
        left_context_frames=30,
        lookaheads=(2, 4, 9),
        use_bias=True,
        dropout=0.15,
        attention_dropout=0.25,
    ),
    PredictionConfig(width=20, layers=3),
    JointConfig(width=20),
    vocabulary=50,
    max_symbols_per_frame=7,
)
# for tests whose time depends on the size
SMALLEST = ModelConfig(
    FeatureConfig(mel_bins=16),
    EncoderConfig(layers=1, width=8, heads=2, feedforward_width=8, subsampling_channels=2, lookaheads=(1, 0)),
    PredictionConfig(width=4, layers=1),
    JointConfig(width=4),
    vocabulary=30,
)


def converted(config: ModelConfig) -> ModelConfig:
    """Returns the settings with which a checkpoint of these arrives here: its text is as in NeMo."""
    return dataclasses.replace(config, text=TextConfig(join_punctuation=True))


def arrays(config: ModelConfig, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Returns random parameters under our names."""
    rng = np.random.default_rng(seed)
    leaves = named_parameters(abstract_model(config))
    return {name: rng.normal(size=leaf.shape).astype(dtype) for name, leaf in leaves.items()}


def tokenizer(pieces: int, control: Iterable[int] = (), user_defined: Iterable[int] = (), more: str = "") -> bytes:
    """Returns a SentencePiece model of byte pairs: "<unk>", pairs of letters, then the letters."""
    proto = sentencepiece_model_pb2.ModelProto()
    letters = ["▁", *"etaoinshrdlucmfwygpbvk", *more]
    pairs = [a + b for a in letters[:6] for b in letters[1:12]][: pieces - 1 - len(letters)]
    texts = ["<unk>", *pairs, *letters]
    assert len(texts) == pieces, len(texts)
    for i, text in enumerate(texts):
        kind = 2 if i == 0 else 3 if i in control else 4 if i in user_defined else 1
        proto.pieces.add(piece=text, score=0.0 if i == 0 else 1.0 - i, type=kind)
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.vocab_size = pieces
    proto.trainer_spec.bos_id = proto.trainer_spec.eos_id = -1
    proto.normalizer_spec.name = "identity"
    return proto.SerializeToString()


def theirs(config: ModelConfig, form: names.Form, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Returns random parameters under the names and in the layout of another toolkit."""
    found = {}
    for ours, array in arrays(config, seed, dtype).items():
        name, layout = names.name_in(form, ours, config.joint.dropout > 0)
        found[name] = np.ascontiguousarray(layout.to_theirs(array))
    return found


def torch_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """Returns a state dict in torch.save's format."""
    target = io.BytesIO()
    torch_format.write(target, tensors.items(), tensors)
    return target.getvalue()


def rezipped(data: bytes, change: dict[str, bytes | None], **options: Any) -> bytes:
    """Returns a zip file with entries replaced, added, or (None) left out; names are without torch's directory."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", **options) as new:
        entries = {info.filename.partition("/")[2]: old.read(info) for info in old.infolist()}
        for name, entry in (entries | change).items():
            if entry is not None:
                new.writestr(f"archive/{name}", entry)
    return target.getvalue()


def settings(config: ModelConfig) -> dict[str, Any]:
    """Returns a parsed model_config.yaml; its tokenizer is the member "0_tokenizer.model"."""
    texts = [piece.text for piece in pieces(tokenizer(config.vocabulary))]
    return nemo.recipe.to_settings(config, texts, {"model_path": "0_tokenizer.model"})


def nemo_members(config: ModelConfig, **changes: Any) -> dict[str, bytes]:
    """Returns the members of a .nemo archive."""
    tensors = changes.get("tensors", theirs(config, "nemo"))
    return {
        "model_config.yaml": nemo.recipe.dump(changes.get("settings", settings(config))),
        "0_tokenizer.model": changes.get("tokenizer", tokenizer(config.vocabulary)),
        "model_weights.ckpt": changes.get("weights") or torch_bytes(tensors),
    }


def tar(members: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> bytes:
    """Returns a tar of members by name, or of headers and data."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        if isinstance(members, dict):
            members = [(header(name, data), data) for name, data in members.items()]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def header(name: str, data: bytes = b"", **changes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def file_of(data: bytes) -> FilePart:
    """Returns a file with these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return open_file(file.name)
