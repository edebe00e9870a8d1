"""The models' input: real speech where it is available, and recordings of awkward lengths."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np

# directories of NAME.jsonl with NAME.tar beside it; NEMOJAX_SPEECH names another place
SPEECH = Path(os.environ.get("NEMOJAX_SPEECH", Path(__file__).parents[3] / "shared" / "speech"))


def real_speech(rng: np.random.Generator, corpus: str, least_s: float, most_s: float) -> dict[str, np.ndarray]:
    """One recording of a corpus, of a length between the two, chosen at random; none where there is no corpus."""
    import soundfile

    index = SPEECH / f"{corpus}.jsonl"
    if not index.exists():
        return {}
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    name = str(rng.choice([line["audio_filepath"] for line in lines if least_s <= line["duration"] <= most_s]))
    with tarfile.open(index.with_suffix(".tar")) as tar:
        samples, rate_hz = soundfile.read(io.BytesIO(tar.extractfile(name).read()), dtype="float32")
    assert rate_hz == 16_000 and samples.ndim == 1
    return {f"{corpus}/{name}": samples}


def boundaries(lookahead: int) -> dict[str, int]:
    """Lengths in samples about the end of a chunk.

    A chunk's samples end at 1280 C (k + 1) - 1080; its last log-mel frame is whole 40 samples before that.
    """
    chunk = 1280 * (lookahead + 1)
    chunks = max(2, 10_000 // chunk)
    end = chunks * chunk - 1080
    return {
        "one sample before a chunk ends": end - 1,
        "one sample into the next chunk": end + 1,
        "one sample before its last log-mel frame ends": end - 41,
        "with its last log-mel frame": end - 40,
    }
