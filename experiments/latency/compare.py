"""Measures how long a step takes in nemojax and in its peers: the same weights, the same audio, one machine, one run.

    python -m experiments compare_latency WORK [--manifests speech.jsonl] [--size full] [--plot latency.svg]

Random weights of the released model's shapes are made once, in every contender's own form, in the directory WORK (20 GB
at full size with ONNX graphs). Each contender has a process of its own. At each look-ahead the contenders take turns on
the same recording, chunk by chunk, after a round that only warms up, so the machine's other load falls on all alike.
Measured are the whole step and its parts, memory, the time from the start of a process to its first text, and
recordings of mixed lengths at once. Labels are compared with nemojax's in float32, so that no contender is fast by
being wrong.

The times are shown beside a floor: the bytes of the weights that a step must read, divided by the rate at which this
machine reads memory, measured in the same run. Tables go to standard output; a row for each measurement is appended to
a file of JSON lines. It needs the environment of `make parity`. Exit codes: 0, all done; 1, a contender failed; 2, the
command is wrong.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import PACKAGES, Experiment
from experiments.harness.rows import Row, Rows
from experiments.latency.process import ContenderError, ContenderProcess
from experiments.latency.report import percentiles, plot, tables
from experiments.latency.worker import CONTENDERS
from experiments.references import SIZES

PEERS = ("torch", "transformers", "nemo_toolkit", "onnxruntime", "openvino", "sherpa-onnx")
REFERENCE = "nemojax float32"  # the others' labels are compared with its labels
FRAME_S = 0.08
RATE_HZ = 16_000

ONNX = ("onnx", "onnxruntime", "onnxscript")
MODULES = {"transformers": ("transformers",), "onnxruntime": ONNX, "sherpa-onnx": (*ONNX, "sherpa_onnx")}


@dataclass(frozen=True)
class Settings:
    work: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="WORK")]]
    """A directory for weights in every form; weights of an earlier run are used again."""
    manifests: tuple[Path, ...] = ()
    """Speech to transcribe; synthetic sounds without."""
    size: str = "full"
    """Of the random weights; see experiments.references.SIZES."""
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    """Library and type of the weights."""
    lookaheads: tuple[int, ...] = (13, 6, 1, 0)
    """In encoder frames."""
    repeats: int = 5
    """Of every measurement, the contenders taking turns."""
    steps: int = 40
    """Maximum number of chunks in each repeat."""
    seconds: float = 30.0
    """Maximum duration of the recording that is streamed."""
    batch_seconds: tuple[float, ...] = (30.0, 2.0, 5.0, 12.0, 3.0, 8.0, 4.0, 16.0)
    """Durations of recordings that are transcribed at once; the first is transcribed alone too."""
    batch_size: int = 4
    """Recordings side by side."""
    starts: int = 3
    """Fresh processes of each contender, for the time to the first text."""
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """That each contender computes with."""
    seed: int = 0
    """Of weights and recordings."""
    output: Path = Path("compare_latency.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Latency of each contender; svg, png or pdf by its name."""

    def check(self) -> None:
        checks.one_of(CONTENDERS, self, "contenders")
        checks.one_of(SIZES, self, "size")
        checks.one_of(SIZES[self.size].lookaheads, self, "lookaheads")
        checks.at_least(1, self, "repeats", "threads", "batch_size")
        checks.at_least(2, self, "steps")
        checks.at_least(0, self, "starts")
        checks.check_installed("torch", "nemo", *self._modules())  # NeMo makes the weights

    def _modules(self) -> list[str]:
        """Returns the modules that the contenders need, besides those that make the weights."""
        return [name for contender in self.contenders for name in MODULES.get(contender.split()[0], ())]


class Measurements:
    """The measurements of a run, as rows.

    Args:
      recordings: those of `settings.batch_seconds`, then one for each look-ahead.
      progress: whose description names the measurement.
    """

    def __init__(self, settings: Settings, recordings: Sequence[np.ndarray], rows: Rows, progress: Any):
        self._settings, self._recordings, self._rows, self._progress = settings, recordings, rows, progress

    def run(self) -> Iterator[Row]:
        """Yields a row for each measurement; a contender that fails is reported, and has no row."""
        settings = self._settings
        yield {"kind": "floor", "bytes_per_second": round(read_rate(settings.threads)), **self._weights()}
        with tempfile.TemporaryDirectory(prefix="nemojax-compiled-") as cache:
            yield from self._starts(Path(cache))
        with ExitStack() as stack:
            processes = []
            for name in settings.contenders:
                self._describe(f"{name}: loading")
                try:
                    processes.append(stack.enter_context(closing(self._process(name))))
                except ContenderError as error:
                    self._rows.report(error)
            for lookahead in settings.lookaheads:
                yield from self._streams(processes, lookahead)
            yield from self._batches(processes)

    def _describe(self, text: str) -> None:
        self._progress.set_description(text)

    def _weights(self) -> Row:
        from nemojax import checkpoint
        from nemojax.model.parameters import abstract_model, named_parameters

        config, _, _ = checkpoint.read_settings(self._settings.work / "native")
        sizes = {name: x.size for name, x in named_parameters(abstract_model(config)).items()}
        # position projections are not read in a step: they are computed once, when a model is loaded
        read = [name for name in sizes if name.startswith("encoder.") and ".position." not in name]
        return {"encoder_parameters": sum(sizes[name] for name in read), "parameters": sum(sizes.values())}

    def _process(self, name: str, cache: Path | None = None) -> ContenderProcess:
        return ContenderProcess(name, self._settings.work, self._settings.threads, cache)

    def _ask(self, process: ContenderProcess, **request: Any) -> dict[str, Any] | None:
        """Returns a contender's answer; None where it fails, which is reported."""
        try:
            return process.ask(**request)
        except ContenderError as error:
            self._rows.report(error)
            return None

    def _starts(self, directory: Path) -> Iterator[Row]:
        lookahead = self._settings.lookaheads[-1]
        for repeat in range(self._settings.starts):
            for name in self._settings.contenders:
                ours = name.startswith("nemojax")
                cache = directory / f"{name}-{repeat}" if ours else None
                for label in ("none", "kept") if ours else ("",):  # the second start finds the first one's programs
                    self._describe(f"{name}: a fresh process")
                    try:
                        start = self._start(name, cache)
                    except ContenderError as error:
                        self._rows.report(error)
                        continue
                    yield {"kind": "start", "lookahead": lookahead, "repeat": repeat, "cache": label, **start}

    def _start(self, name: str, cache: Path | None) -> Row:
        with closing(self._process(name, cache)) as process:
            answer = process.ask(do="first", recording=0, lookahead=self._settings.lookaheads[-1])
            first_s = time.perf_counter() - process.started
        times = {"loaded_s": round(process.loaded_s, 3), "first_s": round(first_s, 3)}
        return {"contender": name, **times, "resident_bytes": answer["resident_bytes"]}

    def _streams(self, processes: Sequence[ContenderProcess], lookahead: int) -> Iterator[Row]:
        chunk_s = FRAME_S * (lookahead + 1)
        # recordings after those of the batch are long enough for the chunks of each look-ahead
        recording = len(self._settings.batch_seconds) + self._settings.lookaheads.index(lookahead)
        reference: list[int] | None = None
        for repeat in range(-1, self._settings.repeats):  # the first warms up, and gives the reference's labels
            for process in processes:
                self._describe(f"{process.name}: look-ahead {lookahead}, {'warming up' if repeat < 0 else repeat + 1}")
                answer = self._ask(process, do="stream", recording=recording, lookahead=lookahead)
                if answer is None:
                    continue
                if process.name == REFERENCE:
                    reference = answer["tokens"]
                if repeat < 0:
                    continue
                steps = answer["steps"]
                yield {
                    "kind": "stream",
                    "contender": process.name,
                    "lookahead": lookahead,
                    "chunk_ms": 1000 * chunk_s,
                    "repeat": repeat,
                    "chunks": len(steps),
                    "frames": len(steps) * (lookahead + 1),
                    **percentiles(steps),
                    "real_time_factor": round(sum(step[0] for step in steps) / (len(steps) * chunk_s), 5),
                    "labels": len(answer["tokens"]),
                    "labels_off": off(answer["tokens"], reference),
                    "peak_bytes": answer["peak_bytes"],
                }

    def _batches(self, processes: Sequence[ContenderProcess]) -> Iterator[Row]:
        settings, lookahead = self._settings, max(self._settings.lookaheads)
        mixed = list(range(len(settings.batch_seconds)))
        for what, chosen, size in (("one alone", [0], 1), ("mixed", mixed, settings.batch_size)):
            audio_s = sum(len(self._recordings[index]) for index in chosen) / RATE_HZ
            reference: list[int] | None = None
            for repeat in range(-1, settings.repeats):
                for process in processes:
                    self._describe(f"{process.name}: recordings, {what}")
                    answer = self._ask(process, do="batch", recordings=chosen, lookahead=lookahead, batch_size=size)
                    if answer is None:
                        continue
                    tokens = list(chain.from_iterable(answer["tokens"]))
                    if process.name == REFERENCE:
                        reference = tokens
                    if repeat >= 0:
                        yield {
                            "kind": "batch",
                            "contender": process.name,
                            "what": what,
                            "lookahead": lookahead,
                            "batch_size": size,
                            "repeat": repeat,
                            "seconds": round(answer["seconds"], 4),
                            "audio_s": audio_s,
                            "labels_off": off(tokens, reference),
                            "peak_bytes": answer["peak_bytes"],
                        }


def off(tokens: Sequence[int], reference: Sequence[int] | None) -> float | None:
    """Returns the edits from the reference's labels, as a share of them."""
    if not reference:
        return None
    return round(Levenshtein.distance(list(reference), list(tokens)) / len(reference), 5)


def read_rate(threads: int, megabytes: int = 512) -> float:
    """Measures the bytes a second read from memory: the best of several passes over arrays, one for each thread."""
    arrays = [np.ones(megabytes * 2**20 // 4 // threads, np.float32) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(7):
            start = time.perf_counter()
            list(pool.map(lambda x: np.dot(x, x), arrays))
            best = max(best, sum(x.nbytes for x in arrays) / (time.perf_counter() - start))
    return best


def measure(settings: Settings, rows: Rows) -> None:
    from experiments.latency.weights import prepare, read_speech

    wants_onnx = any(name.startswith(("onnxruntime", "OpenVINO", "sherpa-onnx")) for name in settings.contenders)
    longest = [min(settings.seconds, settings.steps * FRAME_S * (r + 1) + 0.1) for r in settings.lookaheads]
    recordings = read_speech(settings.manifests, [*settings.batch_seconds, *longest], settings.seed)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # its memory is freed with it
        pool.submit(prepare, settings.size, settings.seed, recordings, settings.work, wants_onnx).result()
    common = {"size": settings.size, "threads": settings.threads}
    common |= {"manifests": [path.name for path in settings.manifests]}
    with tqdm(disable=None, unit=" measurements") as progress:
        for row in Measurements(settings, recordings, rows, progress).run():
            rows.add({**common, **row})
            progress.update()


EXPERIMENT = Experiment("compare_latency", Settings, measure, __doc__, tables, plot, (*PACKAGES, *PEERS))
main = EXPERIMENT.main
