"""Makes one set of random weights in the form that each contender reads, and the recordings that they transcribe.

A directory gets model.nemo, native/, int8/, huggingface/, onnx/ and recordings.npz. Blank is calibrated on speech, so
that an encoder frame has about 0.3 labels, as in English.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from convert.huggingface import checkpoint as huggingface
from convert.nemo import checkpoint as nemo
from experiments.latency.onnx_export import export
from experiments.references import SIZES, nemo_model
from experiments.references.sound import glides
from nemojax import checkpoint
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import open_audio
from nemojax.kernels import quantization

RATE_HZ = 16_000
CALIBRATION_S = 8.0  # of each recording


def read_speech(manifests: Sequence[Path], seconds: Sequence[float], seed: int) -> list[np.ndarray]:
    """Makes a recording of each length by joining those of the manifests; without manifests, synthetic sounds.

    Raises:
      AudioError: a recording can't be read.
    """
    rng = np.random.default_rng(seed)
    if not manifests:
        return [glides(rng, round(length_s * RATE_HZ)) for length_s in seconds]
    needed, pieces, total = round(max(seconds) * RATE_HZ), [], 0
    entries = [entry for manifest in manifests for entry in expand_manifest(manifest)]
    for index in rng.permutation(len(entries)):
        with closing(open_audio(entries[index])) as audio:
            pieces.append(audio.read(needed))
        total += len(pieces[-1])
        if total >= 2 * needed:
            break
    speech = np.concatenate(pieces)
    speech = np.tile(speech, -(-2 * needed // len(speech)))
    starts = rng.integers(0, needed, len(seconds))
    return [speech[start : start + round(length_s * RATE_HZ)] for start, length_s in zip(starts, seconds, strict=True)]


def prepare(size: str, seed: int, recordings: Sequence[np.ndarray], directory: Path, onnx: bool) -> None:
    """Writes weights and recordings. Weights of an earlier call are kept; progress goes to standard error."""
    import torch

    log = partial(print, file=sys.stderr, flush=True)
    done = directory / f"{size}-{seed}{'-onnx' if onnx else ''}.done"
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / "recordings.npz", *recordings)
    if done.exists() or (directory / f"{size}-{seed}-onnx.done").exists():
        return
    for other in directory.glob("*.done"):  # marks other weights, which are now replaced
        other.unlink()
    with torch.no_grad():
        log(f"{size}: random weights, in NeMo's form")
        calibration = [samples[: round(CALIBRATION_S * RATE_HZ)] for samples in recordings[:2]]
        model = nemo_model.build(SIZES[size], seed, directory, calibration)
        model.save_to(str(directory / "model.nemo"))
        for name in ("native", "int8", "huggingface", "onnx"):
            shutil.rmtree(directory / name, ignore_errors=True)
        log("nemojax's form, and transformers'")
        source = nemo.read(directory / "model.nemo")
        checkpoint.save(directory / "native", source.model(), source.tokenizer, source.origin)
        int8 = quantization.quantize(checkpoint.load(directory / "native")[0])
        checkpoint.save(directory / "int8", int8, source.tokenizer, source.origin)
        del int8
        huggingface.write(directory / "native", directory / "huggingface")
        if onnx:
            log("ONNX graphs, float32 and int8")
            export(model, directory / "onnx", SIZES[size].lookaheads)
    done.touch()
