"""The process that runs a contender: requests are lines of JSON on standard input, answers on standard output.

    python -m experiments.latency.worker CONTENDER DIRECTORY THREADS

The first answer is `{"ready": true}`, when the weights are loaded. The requests are:

    {"do": "stream", "recording": 0, "lookahead": 6}                            -> steps, tokens
    {"do": "first", "recording": 0, "lookahead": 6}                             -> tokens, of the first chunk with any
    {"do": "batch", "recordings": [0, 1], "lookahead": 6, "batch_size": 8}      -> seconds, tokens

Each answer also has the process's resident memory, now and at its peak. The process ends with its input.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.latency.contender import Contender


def nemojax(directory: Path, dtype: str, threads: int) -> Contender:
    from experiments.latency.ours import Nemojax

    return Nemojax(directory, dtype)


def peer(module: str, name: str) -> Callable[[Path, str, int], Contender]:
    def load(directory: Path, dtype: str, threads: int) -> Contender:
        peers = importlib.import_module(f"experiments.latency.{module}")
        contender: Contender = getattr(peers, name)(directory, dtype, threads)
        return contender

    return load


CONTENDERS: dict[str, tuple[Callable[[Path, str, int], Contender], str]] = {
    "nemojax float32": (nemojax, "float32"),
    "nemojax bfloat16": (nemojax, "bfloat16"),
    "nemojax int8": (nemojax, "int8"),
    "transformers float32": (peer("peers", "Transformers"), "float32"),
    "transformers bfloat16": (peer("peers", "Transformers"), "bfloat16"),
    "NeMo float32": (peer("peers", "Nemo"), "float32"),
    "onnxruntime float32": (peer("graph_peers", "OnnxRuntime"), "float32"),
    "onnxruntime int8": (peer("graph_peers", "OnnxRuntime"), "int8"),
    "OpenVINO float32": (peer("graph_peers", "OpenVino"), "float32"),
    "OpenVINO bfloat16": (peer("graph_peers", "OpenVino"), "bfloat16"),
    "sherpa-onnx float32": (peer("graph_peers", "SherpaOnnx"), "float32"),
    "sherpa-onnx int8": (peer("graph_peers", "SherpaOnnx"), "int8"),
}


def answer(contender: Contender, recordings: list[np.ndarray], request: dict[str, Any]) -> dict[str, Any]:
    """Runs a request and returns its answer."""
    lookahead = request["lookahead"]
    match request["do"]:
        case "stream":
            steps = list(contender.stream(recordings[request["recording"]], lookahead))
            return {"steps": [step[:3] for step in steps], "tokens": [t for step in steps for t in step.tokens]}
        case "first":
            first = contender.stream(recordings[request["recording"]], lookahead, parts=False)
            return {"tokens": next((step.tokens for step in first if step.tokens), ())}
        case "batch":
            batch = [recordings[index] for index in request["recordings"]]
            start = time.perf_counter()
            tokens = contender.transcribe(batch, lookahead, request["batch_size"])
            return {"seconds": time.perf_counter() - start, "tokens": tokens}
    raise ValueError(f"unknown request {request['do']!r}")


def memory() -> dict[str, int]:
    """Returns this process's resident memory in bytes, now and at its peak."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident_bytes": "VmRSS", "peak_bytes": "VmHWM"}
    return {name: int(lines[field].split()[0]) * 1024 for name, field in names.items()}


def main() -> None:
    name, directory, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard output; the answers have a copy of it to themselves
    load, dtype = CONTENDERS[name]
    with np.load(directory / "recordings.npz") as file:
        recordings = [file[key] for key in file.files]
    contender = load(directory, dtype, threads)

    def say(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    say({"ready": True})
    for line in sys.stdin:
        say({**answer(contender, recordings, json.loads(line)), **memory()})


if __name__ == "__main__":
    main()
