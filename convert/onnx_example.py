"""Runs an exported step with onnxruntime and numpy alone: an example to start from.

    python run.py DIRECTORY AUDIO.npy [AUDIO.npy ...]

Each AUDIO.npy holds one mono recording: samples in -1 to 1, [N], at the sample rate that manifest.json names. As many
recordings as the step has streams are processed at a time. Prints the labels of each as a line of JSON; they are pieces
of tokenizer.model, which sentencepiece turns into text.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def initial_state(manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the state before the first chunk, by the names of the step's inputs."""
    state = {}
    for entry in manifest["state"]:
        value = np.asarray(entry["initial"], np.dtype(entry["dtype"]))
        state[entry["name"]] = np.broadcast_to(value, entry["shape"]).copy()
    return state


def transcribe(directory: Path, recordings: list[np.ndarray]) -> list[list[int]]:
    """Streams recordings chunk by chunk; returns the labels of each.

    Args:
      recordings: float32 samples, [N] each.
    """
    import onnxruntime

    manifest = json.loads((directory / "manifest.json").read_text())
    session = onnxruntime.InferenceSession(directory / manifest["file"], providers=["CPUExecutionProvider"])
    streams, labels = manifest["streams"], []
    for start in range(0, len(recordings), streams):
        labels += _transcribe_batch(session, manifest, recordings[start : start + streams])
    return labels


def _transcribe_batch(session: Any, manifest: dict[str, Any], recordings: list[np.ndarray]) -> list[list[int]]:
    """Streams as many recordings as the step has streams, or fewer."""
    streams, chunk_samples = manifest["streams"], manifest["chunk_samples"]
    state, history = initial_state(manifest), np.zeros(manifest["history_samples"], np.float32)
    next_of = {entry["next"]: entry["name"] for entry in manifest["state"]}
    outputs = [output.name for output in session.get_outputs()]
    padded = [np.concatenate([history, samples]) for samples in recordings]
    labels: list[list[int]] = [[] for _ in padded]
    for start in range(0, max(map(len, padded)), chunk_samples):
        samples = np.zeros((streams, chunk_samples), np.float32)
        length = np.zeros(streams, np.int32)
        for row, stream in enumerate(padded):
            chunk = stream[start : start + chunk_samples]
            samples[row, : len(chunk)], length[row] = chunk, len(chunk)
        segment = {"samples": samples, "length": length, "active": length > 0, "reset": np.zeros(streams, bool)}
        results = dict(zip(outputs, session.run(None, state | segment), strict=True))
        state = {name: results[output] for output, name in next_of.items()}
        for row in range(len(recordings)):
            labels[row] += results["emission.labels"][row, : results["emission.length"][row]].tolist()
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    options = parser.parse_args()
    recordings = [np.load(path).astype(np.float32) for path in options.audio]
    for labels in transcribe(options.directory, recordings):
        print(json.dumps(labels))


if __name__ == "__main__":
    main()
