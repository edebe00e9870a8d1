"""The released model's size, 618,084,865 parameters: from NeMo's archive through the converter to tokens."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nemojax
from experiments.references import SIZES, nemo_model, transformers_model
from experiments.references.nemo_model import Nemo
from experiments.references.sound import glides
from experiments.references.transformers_model import Transformers
from tests.helpers.tracing import Traced
from tests.parity.audio import real_speech
from tests.parity.test_decoding import SEAMS

pytestmark = [pytest.mark.parity, pytest.mark.slow]

SIZE = SIZES["full"]
SECONDS = [(5.8, 7.5), (3.0, 5.8), (3.0, 5.8)]  # of each recording; the left context is 5.6 s


class Full:
    """2.5 GB of weights in torch, which NeMo and transformers share, and as much in jax."""

    def __init__(self, seed: int, directory: Path):
        import torch

        torch.set_num_threads(torch.multiprocessing.cpu_count())
        rng = np.random.default_rng(seed)
        self.recordings: dict[str, np.ndarray] = {}
        for least_s, most_s in SECONDS:
            made = {f"{least_s} s of glides": glides(rng, int(16_000 * least_s))}
            self.recordings |= real_speech(rng, "dev/librispeech_clean", least_s, most_s) or made
        model = nemo_model.build(SIZE, seed, directory, [*self.recordings.values()][:1])
        archive, converted = directory / "full.nemo", directory / "full"
        model.save_to(str(archive))
        subprocess.run([sys.executable, "-m", "convert", "nemo", archive, converted], check=True)
        archive.unlink()
        self.recognizer = nemojax.load(converted)
        shutil.rmtree(converted)
        self.nemo = Nemo(model)
        self.transformers = Transformers(transformers_model.build(SIZE, model), transformers_model.features(SIZE))
        self.nemojax = Traced(self.recognizer.model)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def full(tmp_path_factory, parity_seed):
    gc.collect()
    before, directory = resident_bytes(), tmp_path_factory.mktemp("full")
    full = Full(parity_seed, directory)
    full.resident_before = before
    yield full
    shutil.rmtree(directory)
    gc.collect()


def test_parameters(full):
    assert full.recognizer.parameters == 618_084_865


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_every_seam_and_token(full, seams, lookahead):
    recordings = full.recordings
    chunks = full.nemojax.config.encoder.left_context_frames // (lookahead + 1)
    offline = full.nemojax.run([*recordings.values()], lookahead, chunks)
    stream = full.nemojax.run([*recordings.values()], lookahead, 1)
    for (name, samples), whole, pieces in zip(recordings.items(), offline, stream, strict=True):
        where = f"618M, R={lookahead}, {name}"
        trace = full.nemo.offline(samples, lookahead)
        decoding = full.nemo.double_loop(trace["encoder"])
        for label, run in ("offline", whole), ("stream", pieces):
            seams.compare_traces("NeMo 618M", run.trace, trace, f"{where}, {label}")
            seams.compare_tokens(
                f"618M {label}", decoding, full.nemo.blank, run.tokens, run.frames, f"{where}, {label}"
            )
        ours = full.nemojax.decoding(pieces.trace["encoder"], decoding.tokens, decoding.looked)
        for field, seam in SEAMS.items():
            seams.compare("NeMo 618M", seam, ours[field], getattr(decoding, field), where)
        tokens, frames, text = full.nemo.decode(trace["encoder"])
        seams.compare_tokens("618M NeMo", decoding, full.nemo.blank, tokens, frames, where)
        assert full.recognizer.tokenizer.decode(tokens) == text  # ours differ after a near tie


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_chunk_by_chunk_with_caches(full, seams, lookahead):
    """transformers, on three seconds of the first recording: at look-ahead 0 it takes a third of a second a chunk."""
    name, samples = next(iter(full.recordings.items()))
    samples = samples[:48_000]
    [run] = full.nemojax.run([samples], lookahead, 1, caches=True, batch=len(full.recordings))
    trace, where = full.transformers.offline(samples, lookahead), f"618M, R={lookahead}, {name}"
    seams.compare_traces("transformers 618M", run.trace, trace, where)
    for i, chunk in enumerate(full.transformers.stream(trace["log_mel"], lookahead)):
        begin, end = i * (lookahead + 1), (i + 1) * (lookahead + 1)
        ours = {seam: values[begin:end] for seam, values in run.trace.items()}
        seams.compare_traces("transformers 618M", ours, chunk.trace, f"{where}, chunk {i}")
        seams.compare_caches("transformers 618M", run.caches[i], chunk.caches, f"{where}, chunk {i}")


def test_memory(full):
    """Both copies of the weights, and the peak of loading them, beside what other tests had left."""
    import resource

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - full.resident_before < 12e9
