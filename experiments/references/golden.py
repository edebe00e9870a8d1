"""Makes tests/golden: small models as NeMo and transformers write them, and the values at their seams.

    python -m experiments golden tests/golden

released.nemo    the released model's kind, as NeMo wrote it
family/          the 114M models' kind, as transformers wrote it
*.npz            recordings, and the references' values for them
versions.json    versions of the libraries that made them

Keys of the values: RECORDING is the audio, int16; RECORDING.log_mel; RECORDING.R13.offline.SEAM for each seam
of a whole recording (of the other look-aheads the encoder's output alone); RECORDING.R13.chunk0.encoder and
RECORDING.R13.chunk0.cache.NAME for the whole chunks of a stream, with caches after the first and the last;
RECORDING.R13.decoding.FIELD; RECORDING.R13.tokens, .frames and .text. Seams and fields are those of
`experiments.references.traces`. Whole recordings are NeMo's, streams transformers'; where both have a value, the two
must agree. It needs the parity extra. The values are the same each time.
"""

import contextlib
import json
import platform
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.harness import checks
from experiments.harness.command import ending
from experiments.references import Size, nemo_model, transformers_model
from experiments.references.nemo_model import Nemo
from experiments.references.sound import glides
from experiments.references.traces import Chunk
from experiments.references.transformers_model import Transformers

SEED = 26
SIZES = {
    "released": Size(128, 2, 32, 2, 2, 4, 24, 2, 64),
    "family": Size(80, 2, 32, 2, 2, 4, 24, 1, 64, use_bias=True, scale_input=True, left_context_frames=28),
}
LENGTHS = {"long": 41_733, "short": 5_333}  # samples; neither ends with a chunk or a log-mel frame
MAX_BYTES = 2_000_000
AGREEMENT = 2e-5  # between NeMo and transformers


def values(nemo: Nemo, transformers: Transformers, size: Size, recordings: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns all golden values of one model."""
    found: dict[str, Any] = {}
    for name, samples in recordings.items():
        audio = samples.astype(np.float32) / 32768
        found[name] = samples
        found[f"{name}.log_mel"] = log_mel = nemo.log_mel(audio)
        for lookahead in size.lookaheads:
            key = f"{name}.R{lookahead}"
            trace, other = nemo.offline(audio, lookahead), transformers.offline(audio, lookahead)
            for seam, array in trace.items():
                agree(f"{key}, {seam}", array, other[seam], 1e-3 if seam == "log_mel" else AGREEMENT)
            kept = trace if (name, lookahead) == ("long", 13) else {"encoder": trace["encoder"]}
            found |= {f"{key}.offline.{seam}": array for seam, array in kept.items() if seam != "log_mel"}
            found |= _chunks(key, transformers.stream(log_mel, lookahead), trace["encoder"], name == "long")
            decoding = nemo.double_loop(trace["encoder"])
            tokens, frames, text = nemo.decode(trace["encoder"])
            if not decoding.tokens.tolist() == tokens == transformers.generate(audio, lookahead, streaming=False)[0]:
                raise SystemExit(f"{key}: the references' tokens differ; choose another seed")
            if name == "long":
                if len(tokens) < 4:
                    raise SystemExit(f"{key}: {len(tokens)} tokens are too few; choose another seed")
                if lookahead == 13:
                    found |= {f"{key}.decoding.{field}": array for field, array in decoding._asdict().items()}
            found |= {f"{key}.tokens": np.array(tokens, np.int32), f"{key}.frames": np.array(frames, np.int32)}
            found[f"{key}.text"] = np.array(text)
    return found


def _chunks(key: str, chunks: list[Chunk], whole: np.ndarray, with_caches: bool) -> dict[str, np.ndarray]:
    found = {}
    for i, chunk in enumerate(chunks):
        encoded = chunk.trace["encoder"]
        agree(f"{key}, chunk {i}", encoded, whole[i * len(encoded) : (i + 1) * len(encoded)], AGREEMENT)
        found[f"{key}.chunk{i}.encoder"] = encoded
        if with_caches and i in (0, len(chunks) - 1):
            found |= {f"{key}.chunk{i}.cache.{name}": array for name, array in chunk.caches.items()}
    return found


def agree(where: str, one: np.ndarray, other: np.ndarray, tolerance: float) -> None:
    worst = float(np.abs(one - other).max(initial=0.0))
    if one.shape != other.shape or worst > tolerance:
        raise SystemExit(f"{where}: the references differ by {worst:.1e}")


def make(directory: tyro.conf.Positional[Path]) -> None:
    """Make the golden values and models with NeMo and transformers.

    Args:
      directory: such as tests/golden; it is replaced.
    """
    checks.check_installed("torch", "nemo", "transformers")
    import torch

    torch.set_num_threads(1)  # sums in one order
    directory = directory.absolute()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        made, tokenizer = Path("golden"), Path("tokenizer")  # relative: NeMo's archive holds this path
        made.mkdir()
        tokenizer.mkdir()
        for name, size in SIZES.items():
            rng = np.random.default_rng(SEED)
            recordings = {key: (32768 * glides(rng, samples)).astype(np.int16) for key, samples in LENGTHS.items()}
            model = nemo_model.build(size, SEED, tokenizer, [recordings["long"].astype(np.float32) / 32768])
            theirs = transformers_model.build(size, model)
            found = values(Nemo(model), Transformers(theirs, transformers_model.features(size)), size, recordings)
            np.savez_compressed(made / f"{name}.npz", **found)
            if name == "released":
                model.save_to(str(made / "released.nemo"))
            else:
                transformers_model.save(theirs, size, tokenizer / "tokenizer.model", made / name)
        packages = ("torch", "nemo_toolkit", "transformers", "tokenizers", "sentencepiece", "numpy")
        versions = {"python": platform.python_version(), **{package: version(package) for package in packages}}
        (made / "versions.json").write_text(json.dumps({**versions, "seed": SEED}, indent=2) + "\n")
        size_bytes = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        if size_bytes > MAX_BYTES:
            raise SystemExit(f"{size_bytes:,} bytes are more than {MAX_BYTES:,}")
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(made, directory)
    print(f"{directory}: {size_bytes:,} bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    return ending(lambda: tyro.cli(make, prog="python -m experiments golden", args=arguments))
