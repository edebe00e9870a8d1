"""The batches of a plan's steps, prepared ahead of time by worker processes.

Each of n workers is a grain pipeline in a process of its own, which prepares every n-th batch as a whole. So batches
do not depend on n, a worker can be restarted without the others, and the only state is the number of the next step.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from nemojax.data.corpus import check_share
from nemojax.data.loading import HostBatch, Loader, Unreadable
from nemojax.data.plan import Plan
from nemojax.errors import AudioError, ConfigError, DataError

logger = logging.getLogger(__name__)

ENDLESS = 2**40  # a number of steps, or of bytes, that is never reached
AHEAD = 2  # batches that each worker keeps ready
SMALLEST_SHARED_BYTES = 2**16  # smaller arrays go through a pipe
SHARED_MEMORY = Path("/dev/shm")
MAX_RESTARTS = 3  # of workers in a row, without a batch between
CHECKED = 32  # utterances that are decoded before the first batch
MIN_TRIED = 32  # utterances after which the share of unreadable ones counts; fewer in a smaller corpus


class Pipeline(Iterator[HostBatch]):
    """Iterates endlessly over a host's batches from step `start` on. Close it, or use it in a `with` block.

    Workers are spawned, so the program's main module must be importable without side effects (`if __name__ ==
    "__main__"`), as always with Python's multiprocessing.

    Args:
      workers: number of processes; 0 prepares each batch in this process, when it is asked for.
      report: called with a sentence about each unreadable utterance, once, and about each worker that died.

    Attributes:
      step: number of the next batch. A pipeline started there yields what this one would.
      unreadable: names of the utterances that could not be read so far, with the reason. Their rows were empty.
      waited_s: seconds spent waiting for batches.

    Raises:
      DataError: workers die repeatedly, or more than half of the utterances can't be read: of some that are decoded
        before the first batch, or of those in the batches so far.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        start: int = 0,
        workers: int = 2,
        host: int = 0,
        hosts: int = 1,
        report: Callable[[str], Any] = logger.warning,
    ):
        if workers < 0:
            raise ConfigError(f"workers must be at least 0, not {workers}")
        self.plan, self.step, self.workers, self.waited_s = plan, start, workers, 0.0
        self.unreadable: dict[str, str] = {}
        self._loader, self._report = Loader(plan, host, hosts), report
        self._read, self._failed, self._restarts = 0, 0, 0
        self._running: dict[int, _Worker] = {}  # by step modulo the number of workers
        self._closed = False
        self._check_some()

    def __next__(self) -> HostBatch:
        if self._closed:
            raise DataError("the data pipeline is closed")
        begin = time.perf_counter()
        batch, unreadable = self._next()
        self.waited_s += time.perf_counter() - begin
        self.step += 1
        self._count(int((batch.sample_lengths > 0).sum()), unreadable)
        return batch

    def close(self) -> None:
        """Stops the workers. May be called more than once."""
        self._closed = True
        self._stop()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> tuple[HostBatch, list[Unreadable]]:
        """Returns the next batch, and its unreadable utterances; restarts a worker that died."""
        if not self.workers:
            return self._loader(self.step)
        if not self._running:
            smallest = _smallest_shared(self._loader, self.workers, self._report)
            steps = range(self.step, self.step + self.workers)
            self._running = {at % self.workers: _Worker(self._loader, at, self.workers, smallest) for at in steps}
        while True:
            worker = self._running[self.step % self.workers]
            try:
                made = worker.take()
                self._restarts = 0
                return HostBatch(**made["batch"]), [Unreadable(*entry) for entry in made["unreadable"]]
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):  # grain has no exception of its own for it
                    raise
                worker.close()
                self._restarts += 1
                if self._restarts > MAX_RESTARTS:
                    raise DataError(
                        f"data workers died {self._restarts} times at step {self.step} ({error}); if memory is short, "
                        "use fewer workers or smaller batches"
                    ) from None
                self._report(f"a data worker died; a new one prepares its batches from step {self.step} on")
                restarted = _Worker(self._loader, self.step, self.workers, worker.smallest_shared)
                self._running[self.step % self.workers] = restarted

    def _stop(self) -> None:
        if self._running:
            with ThreadPoolExecutor(len(self._running)) as pool:  # closing one takes a second or two
                list(pool.map(_Worker.close, self._running.values()))
            self._running = {}

    def _check_some(self) -> None:
        """Decodes some utterances of the corpus. Raises DataError where more than half of them can't be read."""
        trained = np.setdiff1d(np.arange(len(self.plan.corpus)), self.plan.unfit)
        chosen = np.random.default_rng(self.plan.settings.seed).permutation(trained)[:CHECKED]
        faults = []
        for utterance in chosen.tolist():
            try:
                self._loader.decode(utterance)
            except AudioError as error:
                faults.append(str(error))
        check_share(faults, len(faults), len(chosen))

    def _count(self, read: int, unreadable: list[Unreadable]) -> None:
        """Counts utterances, and reports unreadable ones. Raises DataError where they are more than half."""
        self._read, self._failed = self._read + read, self._failed + len(unreadable)
        for utterance, reason in unreadable:
            name = f"{utterance}: {self.plan.corpus.recordings[utterance].name}"
            if name not in self.unreadable:
                self.unreadable[name] = reason
                self._report(f"left out of training: {reason}")
        tried = self._read + self._failed
        if tried >= min(MIN_TRIED, len(self.plan.corpus)):
            check_share(list(self.unreadable.values()), self._failed, tried)


class _Steps:
    """A random access source for grain: every `stride`-th batch of a loader from step `start` on."""

    def __init__(self, loader: Loader, start: int, stride: int):
        self.loader, self.start, self.stride = loader, start, stride

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch, unreadable = self.loader(self.start + index * self.stride)
        return {"batch": batch._asdict(), "unreadable": [tuple(u) for u in unreadable]}


class _Worker:
    """A process that prepares batches ahead of time.

    Args:
      smallest_shared: size in bytes from which arrays go through shared memory.
    """

    def __init__(self, loader: Loader, start: int, stride: int, smallest_shared: int):
        try:
            import grain
            from absl import flags
        except ImportError:
            raise DataError("data workers need grain: install nemojax[train]") from None
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which only programs built on absl parse
        batches = grain.MapDataset.source(_Steps(loader, start, stride)).to_iter_dataset(
            grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        )
        options = grain.experimental.DatasetOptions(min_shm_size=smallest_shared)
        batches = grain.experimental.WithOptionsIterDataset(batches, options).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=AHEAD), worker_init_fn=_begin_worker
        )
        self.smallest_shared = smallest_shared
        self._batches = iter(batches)
        # grain starts the process when the first batch is asked for; asking in a thread starts all workers at once
        self._first: Future[dict[str, Any]] | None = Future()
        threading.Thread(target=_fulfill, args=(self._first, self._batches), daemon=True).start()

    def take(self) -> dict[str, Any]:
        """Returns the worker's next batch, when it is ready."""
        first, self._first = self._first, None
        batch: dict[str, Any] = next(self._batches) if first is None else first.result()
        return batch

    def close(self) -> None:
        """Stops the process."""
        if self._first is not None:
            wait([self._first])
        self._batches.close()


def _fulfill(future: "Future[dict[str, Any]]", batches: Iterator[dict[str, Any]]) -> None:
    """Sets a future to the next batch, or to the error in its place."""
    try:
        future.set_result(next(batches))
    except BaseException as error:
        future.set_exception(error)


def _smallest_shared(loader: Loader, workers: int, report: Callable[[str], Any]) -> int:
    """Returns the size in bytes from which arrays go through shared memory; ENDLESS where it has too little room."""
    largest = max(bucket.frames * bucket.batch for bucket in loader.plan.buckets) // loader.hosts
    needed = 4 * largest * loader.plan.config.frame_samples * workers * (AHEAD + 2)
    if not SHARED_MEMORY.is_dir() or (free := shutil.disk_usage(SHARED_MEMORY).free) >= needed:
        return SMALLEST_SHARED_BYTES
    report(
        f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free and {needed / 2**20:.0f} MiB may be needed; "
        "batches go through pipes, which is slower"
    )
    return ENDLESS


def _begin_worker(index: int, count: int) -> None:
    """Prepares a worker process: it ignores control-C, and exits with the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles it, and stops its workers
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Waits for the main process to end, and exits: a killed main process can't stop its workers."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
