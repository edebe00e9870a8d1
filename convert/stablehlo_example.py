"""Runs an exported step with jax and numpy alone (jax.export also needs flatbuffers): an example to start from.

    python run.py DIRECTORY AUDIO.npy [AUDIO.npy ...] [--lookahead R]

Each AUDIO.npy holds one mono recording: samples in -1 to 1, [N], at the sample rate that manifest.json names. The
recordings are the rows of one batch. Prints the labels of each as a line of JSON; they are pieces of tokenizer.model,
which sentencepiece turns into text.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np


def read_weights(directory: Path, manifest: dict[str, Any]) -> list[jax.Array]:
    """Returns the arrays of the weights file in the order of the step's arguments."""
    if manifest["weights_file"] is None:
        return []  # they are inside the step
    path = directory / manifest["weights_file"]
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    data = np.memmap(path, np.uint8, "r", offset=8 + header_bytes)
    weights = []
    for entry in manifest["weights"]:
        begin, end = header[entry["name"]]["data_offsets"]
        array = data[begin:end].view(np.dtype(entry["dtype"])).reshape(entry["shape"])
        weights.append(jax.device_put(array))
    return weights


def initial_state(manifest: dict[str, Any], batch: int) -> list[jax.Array]:
    """Returns the state of `batch` streams before their first chunk."""
    state = []
    for entry in manifest["state"]:
        value = np.asarray(entry["initial"], np.dtype(entry["dtype"]))
        state.append(jax.device_put(np.broadcast_to(value, [batch, *entry["shape"][1:]])))
    return state


def transcribe(directory: Path, recordings: list[np.ndarray], lookahead: int | None = None) -> list[list[int]]:
    """Streams recordings chunk by chunk, all in one batch; returns the labels of each.

    Args:
      recordings: float32 samples, [N] each.
      lookahead: in encoder frames; None means the manifest's first step.
    """
    manifest = json.loads((directory / "manifest.json").read_text())
    entry = next(entry for entry in manifest["steps"] if lookahead in (None, entry["lookahead"]))
    exported = jax.export.deserialize(bytearray((directory / entry["file"]).read_bytes()))
    step = jax.jit(exported.call)
    weights, state = read_weights(directory, manifest), initial_state(manifest, len(recordings))

    chunk_samples, history = entry["chunk_samples"], np.zeros(manifest["history_samples"], np.float32)
    streams = [np.concatenate([history, samples]) for samples in recordings]
    labels: list[list[int]] = [[] for _ in streams]
    for start in range(0, max(map(len, streams)), chunk_samples):
        samples = np.zeros((len(streams), chunk_samples), np.float32)
        length = np.zeros(len(streams), np.int32)
        for row, stream in enumerate(streams):
            chunk = stream[start : start + chunk_samples]
            samples[row, : len(chunk)], length[row] = chunk, len(chunk)
        active, reset = length > 0, np.zeros(len(streams), bool)
        results = step(*weights, *state, samples, length, active, reset)
        state, emission = results[: len(state)], results[len(state) :]
        named = {array["name"]: np.asarray(result) for array, result in zip(entry["emission"], emission, strict=True)}
        for row, count in enumerate(named["length"]):
            labels[row] += named["labels"][row, :count].tolist()
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--lookahead", type=int)
    options = parser.parse_args()
    recordings = [np.load(path).astype(np.float32) for path in options.audio]
    for labels in transcribe(options.directory, recordings, options.lookahead):
        print(json.dumps(labels))


if __name__ == "__main__":
    main()
