"""The plan's steps as batches of arrays, made ahead of time by worker processes.

Each of n workers is a grain pipeline with a process of its own, which makes every n-th batch, whole. So batches
are the same whatever n is, one worker can be started again without the others, and all state is the number of
the next step.
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

from nemojax.data.loading import Batch, Loader
from nemojax.data.plan import Plan
from nemojax.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

ENDLESS = 2**40  # steps, or bytes
AHEAD = 2  # batches that each worker keeps ready
SMALLEST_SHARED_BYTES = 2**16  # arrays below this go through a pipe
SHARED_MEMORY = Path("/dev/shm")
RESTARTS = 3  # of the workers without a batch between them
UNREADABLE_LIMIT = 50  # so many utterances, if they are half of all, are no accident


class Pipeline(Iterator[Batch]):
    """Iterates over a host's batches from step `start` on, without end. Close it, or use it in a `with` block.

    With workers, the program's main module must be importable without side effects (`if __name__ ==
    "__main__"`), as always with Python's multiprocessing: workers are spawned.

    Args:
      workers: processes; 0 makes each batch here when it is asked for.
      report: called with a sentence about each utterance that can't be read, once, and about dead workers.

    Attributes:
      step: of the next batch; a pipeline begun there goes on as this one would.
      unreadable: the names of the utterances that could not be read so far, and why. Their rows were empty.
      waited_s: seconds that were spent waiting for batches.

    Raises:
      DataError: workers die again and again, or too many utterances can't be read.
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
        self._read, self._restarts = 0, 0
        self._running: dict[int, _Worker] = {}  # by the remainder of their steps
        self._closed = False

    def __next__(self) -> Batch:
        if self._closed:
            raise DataError("the data pipeline is closed")
        begin = time.perf_counter()
        batch, unreadable = self._next()
        self.waited_s += time.perf_counter() - begin
        self.step += 1
        self._note(int((batch.sample_lengths > 0).sum()), unreadable)
        return batch

    def close(self) -> None:
        """Ends the workers. May be called again."""
        self._closed = True
        self._stop()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Any:
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
                return Batch(**made["batch"]), made["unreadable"]
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):  # grain has no type of its own for it
                    raise
                worker.close()
                self._restarts += 1
                if self._restarts > RESTARTS:
                    raise DataError(
                        f"data workers died {self._restarts} times at step {self.step} ({error}); if memory is short, "
                        "use fewer workers or smaller batches"
                    ) from None
                self._report(f"a data worker died; another makes its batches from step {self.step} on")
                again = _Worker(self._loader, self.step, self.workers, worker.smallest)
                self._running[self.step % self.workers] = again

    def _stop(self) -> None:
        if self._running:
            with ThreadPoolExecutor(len(self._running)) as pool:  # each takes a second or two
                list(pool.map(_Worker.close, self._running.values()))
            self._running = {}

    def _note(self, read: int, unreadable: list[tuple[int, str]]) -> None:
        self._read += read
        for utterance, reason in unreadable:
            name = f"{utterance}: {self.plan.corpus.recordings[utterance].name}"
            if name not in self.unreadable:
                self.unreadable[name] = reason
                self._report(f"left out of training: {reason}")
        if len(self.unreadable) >= max(UNREADABLE_LIMIT, self._read):
            last = next(reversed(self.unreadable.values()))
            raise DataError(
                f"{len(self.unreadable)} utterances can't be read, and only {self._read} could; the last: {last}; "
                "check the manifests with python -m nemojax.data.validate"
            )


class _Steps:
    """Every `stride`-th batch of a loader from a step on, as grain's random access source."""

    def __init__(self, loader: Loader, start: int, stride: int):
        self.loader, self.start, self.stride = loader, start, stride

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch, unreadable = self.loader(self.start + index * self.stride)
        return {"batch": batch._asdict(), "unreadable": [tuple(u) for u in unreadable]}


class _Worker:
    """A process that makes batches ahead of time. `smallest` is the size of arrays that go through shared memory."""

    def __init__(self, loader: Loader, start: int, stride: int, smallest: int):
        try:
            import grain
            from absl import flags
        except ImportError:
            raise DataError("data workers need grain: install nemojax[train]") from None
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads flags that only programs built on absl would parse
        batches = grain.MapDataset.source(_Steps(loader, start, stride)).to_iter_dataset(
            grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        )
        options = grain.experimental.DatasetOptions(min_shm_size=smallest)
        batches = grain.experimental.WithOptionsIterDataset(batches, options).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=AHEAD), worker_init_fn=_begin_worker
        )
        self.smallest = smallest
        self._batches = iter(batches)
        # the process begins with the first batch asked for, which must not wait for the workers before it
        self._first: Future | None = Future()
        threading.Thread(target=_fulfil, args=(self._first, self._batches), daemon=True).start()

    def take(self) -> dict[str, Any]:
        first, self._first = self._first, None
        return next(self._batches) if first is None else first.result()

    def close(self) -> None:
        if self._first is not None:
            wait([self._first])
        self._batches.close()


def _fulfil(future: Future, batches: Iterator) -> None:
    try:
        future.set_result(next(batches))
    except BaseException as error:
        future.set_exception(error)


def _smallest_shared(loader: Loader, workers: int, report: Callable[[str], Any]) -> int:
    """The size in bytes from which arrays go through shared memory: none do where it is too small for them."""
    largest = max(bucket.frames * bucket.batch for bucket in loader.plan.buckets) // loader.hosts
    needed = 4 * largest * loader.plan.config.frame_samples * workers * (AHEAD + 2)
    if not SHARED_MEMORY.is_dir() or (free := shutil.disk_usage(SHARED_MEMORY).free) >= needed:
        return SMALLEST_SHARED_BYTES
    report(
        f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free and {needed / 2**20:.0f} MiB may be needed; "
        "batches come through pipes, which is slower"
    )
    return ENDLESS


def _begin_worker(index: int, count: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C is for the main process, which ends its workers
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """A killed main process can't end its workers, which would wait for it for ever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
