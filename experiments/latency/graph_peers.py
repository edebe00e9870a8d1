"""onnxruntime, OpenVINO and sherpa-onnx as contenders: they run the ONNX graphs of `onnx_export`."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.latency.contender import GreedySearch, Step, timed_steps
from experiments.latency.onnx_export import graph
from experiments.latency.ours import log_mel_of


class GraphContender(ABC):
    """A contender that runs ONNX graphs of a streaming encoder, of which it loads one look-ahead's at a time.

    Whole recordings are streamed too, since there is no other graph.
    """

    _open: Callable[[str], Any]

    def __init__(self, directory: Path, dtype: str):
        self._directory = directory / "onnx"
        self._lookahead: int | None = None
        self._name = "encoder_int8" if dtype == "int8" else "encoder"

    def _opened(self, lookahead: int) -> Any:
        if self._lookahead != lookahead:
            self._graph = None  # frees the other graph's weights first
            self._graph, self._lookahead = self._open(graph(self._directory, self._name, lookahead)), lookahead
        return self._graph

    @abstractmethod
    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]: ...

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        return [sum((step.tokens for step in self.stream(samples, lookahead)), ()) for samples in recordings]


class Graph(ABC):
    """A loaded ONNX graph with the metadata of its file."""

    metadata: Mapping[str, str]

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Returns the outputs in their order."""


class LayersContender(GraphContender):
    """A contender with the encoder in one graph and the decoder's layers in others.

    Args:
      open_graph: loads the graph of a file.
    """

    def __init__(self, directory: Path, dtype: str, open_graph: Callable[[str], Graph]):
        super().__init__(directory, dtype)
        self._open = open_graph
        layers = ("project", "predict", "logits")
        self._project, self._predict, self._logits = (open_graph(graph(self._directory, name)) for name in layers)
        sizes = ("blank", "layers", "width", "mels")
        self._blank, self._layers, self._width, self._mels = (int(self._logits.metadata[name]) for name in sizes)

    def _search(self) -> GreedySearch:
        def predict(label: int, state: Any) -> tuple[Any, Any]:
            zero = np.zeros((self._layers, 1, self._width), np.float32)
            hidden, cell = state or (zero, zero)
            output, hidden, cell = self._predict({"label": np.array([[label]]), "hidden": hidden, "cell": cell})
            return output, (hidden, cell)

        def best(frame: Any, prediction: Any) -> int:
            return int(self._logits({"frame": frame, "prediction": prediction})[0].argmax())

        project = lambda encoded: self._project({"encoded": encoded})[0][:, None, None]
        return GreedySearch(self._blank, project, predict, best)

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        encoder, log_mel = self._opened(lookahead), log_mel_of(samples, self._mels)  # the graphs compute none
        metadata = encoder.metadata
        caches: dict[str, Any] = {
            name: np.zeros(json.loads(metadata[name]), np.float32) for name in ("cache_last_channel", "cache_last_time")
        }
        caches["cache_last_channel_len"] = np.zeros(1, np.int64)

        def encode(signal: np.ndarray) -> np.ndarray:
            inputs = {"audio_signal": signal, "length": np.array([signal.shape[2]], np.int64)}
            encoded, _, *after = encoder(inputs | caches)
            caches.update(zip(caches, after, strict=True))
            return np.ascontiguousarray(encoded[0].T)

        # all windows have one length, so the first begins with zeros before the recording; NeMo's own first chunk does
        # not, so the first few frames differ from NeMo's
        window, shift = int(metadata["window"]), int(metadata["shift"])
        padded = np.pad(log_mel, ((window - (8 * lookahead + 1), 0), (0, 0)))
        chunks = [
            np.ascontiguousarray(padded[begin : begin + window].T)[None]
            for begin in range(0, len(padded) - window + 1, shift)
        ]
        yield from timed_steps(chunks, encode, self._search())


class OnnxRuntime(LayersContender):
    """onnxruntime."""

    def __init__(self, directory: Path, dtype: str, threads: int):
        super().__init__(directory, dtype, partial(OnnxRuntimeGraph, threads=threads))


class OnnxRuntimeGraph(Graph):
    """A session of onnxruntime."""

    def __init__(self, path: str, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.metadata = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, inputs: Mapping[str, Any]) -> list[Any]:
        outputs: list[Any] = self._session.run(None, dict(inputs))
        return outputs


class OpenVino(LayersContender):
    """OpenVINO, which compiles the float32 graphs; with bfloat16 it computes in bfloat16 where the processor can."""

    def __init__(self, directory: Path, dtype: str, threads: int):
        import openvino

        core = openvino.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "int8": "f32", "bfloat16": "bf16"}[dtype],
        }
        super().__init__(directory, dtype, partial(OpenVinoGraph, core, settings))


class OpenVinoGraph(Graph):
    """A graph that OpenVINO has compiled."""

    def __init__(self, core: Any, settings: Mapping[str, Any], path: str):
        import onnx

        self._request = core.compile_model(path, "CPU", dict(settings)).create_infer_request()
        properties = onnx.load(path, load_external_data=False).metadata_props
        self.metadata = {entry.key: entry.value for entry in properties}

    def __call__(self, inputs: Mapping[str, Any]) -> list[Any]:
        outputs = self._request.infer(dict(inputs))  # copies, so the caches are no views of the next step's outputs
        return [outputs[index] for index in range(len(outputs))]


class SherpaOnnx(GraphContender):
    """sherpa-onnx with its own features and greedy search: a step runs from samples to labels, and has no parts.

    A graph's window is longer than a chunk by the frames that subsampling looks back at. sherpa-onnx does not fill the
    first window up with zeros, so its chunks begin some log-mel frames later, and its labels differ.
    """

    def __init__(self, directory: Path, dtype: str, threads: int):
        import sherpa_onnx

        super().__init__(directory, dtype)
        parts = {name: graph(self._directory, name) for name in ("decoder", "joiner")}
        tokens = str(self._directory / "tokens.txt")
        self._open = partial(sherpa_onnx.OnlineRecognizer.from_transducer, tokens, num_threads=threads, **parts)

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        recognizer, returned = self._opened(lookahead), 0
        stream, chunk = recognizer.create_stream(), 1280 * (lookahead + 1)
        for begin in range(0, len(samples) - chunk + 1, chunk):
            start = time.perf_counter()
            stream.accept_waveform(16_000, samples[begin : begin + chunk])
            ready = recognizer.is_ready(stream)
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
            tokens = recognizer.tokens(stream)
            seconds = time.perf_counter() - start
            if ready:
                yield Step(seconds, math.nan, math.nan, tuple(int(token) for token in tokens[returned:]))
                returned = len(tokens)
