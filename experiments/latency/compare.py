"""How long a step takes in nemojax and in its peers: the same weights, the same audio, one machine, one run.

    python -m experiments compare_latency WORK [--manifests speech.jsonl] [--size full] [--plot latency.svg]

Random weights of the released model's shapes are made once, in every contender's own form, in the directory WORK
(20 GB at full size with ONNX graphs); each contender has a process of its own. At each look-ahead they hear the same
recording chunk by chunk, one after the other, over and over, after a round that only warms up: so whatever else the
machine does falls on all alike. Measured are the whole step and its parts, memory, how long a fresh process takes to
its first text, and recordings of mixed lengths at once. Labels are compared with nemojax's in float32, so nobody is
fast by being wrong.

Beside the times stands a floor: the bytes of the weights that a step must read, over the rate at which this machine
reads memory, measured in the same run. A table goes to standard output, a row for each measurement to JSON lines,
after those that are there. It needs the environment of `make parity`. Exit codes:
0, all is done; 1, a contender failed; 2, the command is wrong.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from experiments.harness.command import command
from experiments.harness.machine import load_average, machine
from experiments.harness.output import plot_format, writable
from experiments.latency.process import Failed, Process
from experiments.latency.report import Row, batch_table, floor, percentiles, plot, start_table, stream_table, verdicts
from experiments.latency.weights import RATE_HZ, prepare, read_speech
from experiments.latency.worker import CONTENDERS
from nemojax import checkpoint
from nemojax.errors import ConfigError
from nemojax.model.parameters import abstract_model, named_parameters

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy", "torch", "transformers", "nemo_toolkit")
PACKAGES += ("onnxruntime", "sherpa-onnx")
REFERENCE = "nemojax float32"
FRAME_S = 0.08


@dataclass(frozen=True)
class Settings:
    work: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="WORK")]]
    """A directory for weights in every form; what is there from an earlier run is used again."""
    manifests: tuple[Path, ...] = ()
    """Speech to hear; made-up sounds without."""
    size: str = "full"
    """Of the random weights; see experiments.references.SIZES."""
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    lookaheads: tuple[int, ...] = (13, 6, 1, 0)
    repeats: int = 5
    """Of every measurement, the contenders taking turns."""
    steps: int = 40
    """Chunks heard in each repeat, at most."""
    seconds: float = 30.0
    """Of the recording that is heard, at most."""
    batch_seconds: tuple[float, ...] = (30.0, 2.0, 5.0, 12.0, 3.0, 8.0, 4.0, 16.0)
    """Lengths of recordings that are transcribed at once; the first is transcribed alone too."""
    batch_size: int = 4
    starts: int = 3
    """Fresh processes of each contender, from which the time to the first text is taken."""
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    seed: int = 0
    output: Path = Path("compare_latency.jsonl")
    plot: Path | None = None

    def check(self) -> None:
        from experiments.references import SIZES

        for name in self.contenders:
            if name not in CONTENDERS:
                raise ConfigError(f"--contenders: {name!r} is none of {', '.join(CONTENDERS)}")
        if self.size not in SIZES:
            raise ConfigError(f"--size: {self.size!r} is none of {', '.join(SIZES)}")
        wrong = [r for r in self.lookaheads if r not in SIZES[self.size].lookaheads]
        if wrong:
            raise ConfigError(f"--lookaheads: {wrong[0]} is none of {SIZES[self.size].lookaheads}")
        if self.repeats < 1 or self.steps < 2 or self.threads < 1 or self.batch_size < 1 or self.starts < 0:
            raise ConfigError("--repeats, --threads and --batch-size must be at least 1, --steps 2, and --starts 0")
        if self.plot is not None:
            plot_format(self.plot)


class Run:
    """The measurements of a run, as rows."""

    def __init__(self, settings: Settings, recordings: Sequence[np.ndarray], say: Callable[[str], object]):
        self._settings, self._recordings, self._say = settings, recordings, say
        self.failed: list[str] = []

    def measure(self) -> Iterator[Row]:
        settings = self._settings
        yield {"kind": "floor", "bytes_per_second": round(read_rate(settings.threads)), **self._weights()}
        with tempfile.TemporaryDirectory(prefix="nemojax-compiled-") as cache:
            yield from self._starts(Path(cache))
        with ExitStack() as stack:
            processes = [p for name in settings.contenders if (p := self._opened(name, stack)) is not None]
            for lookahead in settings.lookaheads:
                yield from self._streams(processes, lookahead)
            yield from self._batches(processes)

    def _weights(self) -> Row:
        config, _, _ = checkpoint.read_settings(self._settings.work / "native")
        sizes = {name: x.size for name, x in named_parameters(abstract_model(config)).items()}
        # positions are projected once, when a model is loaded
        read = [name for name in sizes if name.startswith("encoder.") and ".position." not in name]
        encoder = sum(sizes[name] for name in read)
        return {"encoder_parameters": encoder, "parameters": sum(sizes.values())}

    def _opened(self, name: str, stack: ExitStack) -> Process | None:
        self._say(f"{name}: loading")
        return self._tried(lambda: self._entered(self._process(name), stack))

    def _process(self, name: str, cache: Path | None = None) -> Process:
        return Process(name, self._settings.work, self._settings.threads, cache)

    def _entered(self, process: Process, stack: ExitStack) -> Process:
        stack.callback(process.close)
        return process

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Failed as error:
            self._say(f"error: {error}")
            self.failed.append(str(error))
            return None

    def _starts(self, cache: Path) -> Iterator[Row]:
        lookahead = self._settings.lookaheads[-1]
        for repeat in range(self._settings.starts):
            for name in self._settings.contenders:
                ours = name.startswith("nemojax")
                kept = cache / f"{name}-{repeat}"
                for label in ("none", "kept") if ours else ("",):
                    self._say(f"{name}: a fresh process")
                    row = self._tried(lambda name=name, ours=ours, kept=kept: self._start(name, kept if ours else None))
                    if row is not None:
                        yield {"kind": "start", "lookahead": lookahead, "repeat": repeat, "cache": label, **row}

    def _start(self, name: str, cache: Path | None) -> Row:
        process = self._process(name, cache)
        try:
            process.ask(do="first", recording=0, lookahead=self._settings.lookaheads[-1])
            first_s = time.perf_counter() - process.started
        finally:
            process.close()
        return {"contender": name, "loaded_s": round(process.loaded_s, 3), "first_s": round(first_s, 3)}

    def _streams(self, processes: Sequence[Process], lookahead: int) -> Iterator[Row]:
        chunk_s = FRAME_S * (lookahead + 1)
        reference: dict[int, list[int]] = {}
        for repeat in range(-1, self._settings.repeats):  # the first warms up, and its labels are what is compared
            for process in processes:
                self._say(f"{process.name}: look-ahead {lookahead}, {'warming up' if repeat < 0 else repeat + 1}")
                request = {"do": "stream", "recording": self._heard(lookahead), "lookahead": lookahead}
                answer = self._tried(lambda process=process, request=request: process.ask(**request))
                if answer is None:
                    continue
                if process.name == REFERENCE:
                    reference[lookahead] = answer["tokens"]
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
                    "labels_off": off(answer["tokens"], reference.get(lookahead)),
                    "peak_bytes": answer["peak_bytes"],
                }

    def _heard(self, lookahead: int) -> int:
        """The number of the recording that is long enough for the chunks asked for."""
        return len(self._settings.batch_seconds) + self._settings.lookaheads.index(lookahead)

    def _batches(self, processes: Sequence[Process]) -> Iterator[Row]:
        settings, lookahead = self._settings, max(self._settings.lookaheads)
        mixed = list(range(len(settings.batch_seconds)))
        for what, chosen, size in (("one alone", [0], 1), ("mixed", mixed, settings.batch_size)):
            audio_s = sum(len(self._recordings[index]) for index in chosen) / RATE_HZ
            reference: list[list[int]] | None = None
            for repeat in range(-1, settings.repeats):
                for process in processes:
                    self._say(f"{process.name}: recordings, {what}")
                    request = {"do": "batch", "recordings": chosen, "lookahead": lookahead, "batch_size": size}
                    answer = self._tried(lambda process=process, request=request: process.ask(**request))
                    if answer is None:
                        continue
                    if process.name == REFERENCE:
                        reference = answer["tokens"]
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
                            "labels_off": off(joined(answer["tokens"]), reference and joined(reference)),
                            "peak_bytes": answer["peak_bytes"],
                        }


def joined(lists: Sequence[Sequence[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def off(tokens: Sequence[int], reference: Sequence[int] | None) -> float | None:
    """Edits from the reference's labels, as a share of them."""
    if not reference:
        return None
    return round(Levenshtein.distance(list(reference), list(tokens)) / len(reference), 5)


def read_rate(threads: int, megabytes: int = 512) -> float:
    """Bytes a second that this machine reads from memory: the best of a few passes over arrays, one for each thread."""
    arrays = [np.ones(megabytes * 2**20 // 4 // threads, np.float32) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(7):
            start = time.perf_counter()
            list(pool.map(lambda x: np.dot(x, x), arrays))
            best = max(best, sum(x.nbytes for x in arrays) / (time.perf_counter() - start))
    return best


def run(settings: Settings) -> int:
    settings.check()
    wants_onnx = any(name.startswith(("onnxruntime", "sherpa-onnx")) for name in settings.contenders)
    longest = [min(settings.seconds, settings.steps * FRAME_S * (r + 1) + 0.1) for r in settings.lookaheads]
    recordings = read_speech(settings.manifests, [*settings.batch_seconds, *longest], settings.seed)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # whose memory is given back
        pool.submit(prepare, settings.size, settings.seed, recordings, settings.work, wants_onnx).result()
    run, rows = Run(settings, recordings, lambda text: bar.set_description(text)), []
    common = {
        "experiment": "compare_latency",
        "size": settings.size,
        "threads": settings.threads,
        "seed": settings.seed,
    }
    common |= {"manifests": [path.name for path in settings.manifests], **machine(PACKAGES)}
    with writable(settings.output, "a") as output, tqdm(disable=None, unit=" measurements") as bar:
        for row in run.measure():
            rows.append(row)
            output.write(json.dumps({**common, "load": load_average(), **row}, allow_nan=False) + "\n")
            output.flush()
            bar.update()
    for part in (stream_table(rows), batch_table(rows), start_table(rows)):
        print(part, end="\n\n")
    print("\n".join([floor(rows), *verdicts(rows)]))
    for error in dict.fromkeys(run.failed):
        print(f"error: {error}", file=sys.stderr)
    if settings.plot is not None:
        plot(rows, settings.plot)
    return 1 if run.failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "compare_latency", __doc__, arguments)
