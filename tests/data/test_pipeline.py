"""The pipeline: batches do not depend on workers or on the first step, and workers end with it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nemojax.config import ModelConfig
from nemojax.data import pipeline as pipeline_module
from nemojax.data.corpus import Source, load_corpus
from nemojax.data.loading import Loader
from nemojax.data.pipeline import Pipeline
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.waveform import RECIPE
from nemojax.errors import ConfigError, DataError
from nemojax.text.tokenizer import Tokenizer
from tests.data.corpora import write_speech
from tests.helpers.messages import whole

CONFIG = ModelConfig()
TEXTS = ["the quick dog", "a fine day", "one or two", "she messages", "over the lazy fox", "it's a dog", "jumps"]


@pytest.fixture
def plan(tmp_path, pieces):
    manifest = write_speech(tmp_path, "speech", TEXTS)
    corpus = load_corpus([Source(manifest)], Tokenizer(pieces), CONFIG)
    return Plan(corpus, CONFIG, PlanConfig(batch_frames=90, bucket_count=3), RECIPE)


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for one, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(one, same, strict=True)


def copied(batches):
    return [type(batch)(*(np.array(part) for part in batch)) for batch in batches]


def test_a_pipeline_started_at_a_step_yields_the_same(plan):
    whole = list(islice(Pipeline(plan, workers=0), 9))
    resumed = Pipeline(plan, start=4, workers=0)
    assert_same(islice(resumed, 5), whole[4:])
    assert resumed.step == 9 and resumed.waited_s > 0


def test_an_utterance_is_reported_once(plan, tmp_path):
    (tmp_path / "speech-2.wav").write_bytes(b"")
    messages = []
    pipeline = Pipeline(plan, workers=0, report=messages.append)
    epochs = 3
    batches = [next(pipeline) for _ in range(plan.first_step(epochs))]
    assert messages == ["left out of training: speech-2.wav: it is empty (0 bytes)"]
    assert list(pipeline.unreadable.items()) == [("2: speech-2.wav", "speech-2.wav: it is empty (0 bytes)")]
    assert not any(2 in batch.utterances for batch in batches)


def test_data_of_which_most_can_not_be_read_stop_a_run_before_its_first_batch(plan, tmp_path):
    for index in range(3):
        (tmp_path / f"speech-{index}.wav").unlink()
    Pipeline(plan, workers=0)  # three of seven
    for index in range(3, 7):
        (tmp_path / f"speech-{index}.wav").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=whole(
            "7 of 7 utterances can't be read (speech-2.wav: there is no such file; speech-4.wav: it is "
            "empty (0 bytes); speech-3.wav: it is empty (0 bytes); speech-6.wav: it is empty (0 "
            "bytes); speech-5.wav: it is empty (0 bytes); ...); python -m nemojax.data.validate lists "
            "everything wrong with manifests"
        ),
    ):
        Pipeline(plan, workers=0)


def test_utterances_are_checked_to_their_ends(plan, tmp_path):
    for index in range(4):
        (tmp_path / f"speech-{index}.wav").write_bytes((tmp_path / f"speech-{index}.wav").read_bytes()[:-500])
    with pytest.raises(DataError, match=r"^4 of 7 utterances can't be read \(speech-\d.wav: truncated"):
        Pipeline(plan, workers=0)


def test_a_run_stops_when_most_utterances_so_far_could_not_be_read(plan, tmp_path, monkeypatch):
    """As when a disk fails during the run."""
    monkeypatch.setattr(pipeline_module, "MIN_TRIED", 5)
    pipeline, read = Pipeline(plan, workers=0, report=lambda sentence: None), 0
    while read < 5:
        read += int((next(pipeline).sample_lengths > 0).sum())
    for index in range(7):
        (tmp_path / f"speech-{index}.wav").unlink()
    with pytest.raises(
        DataError,
        match=whole(
            "7 of 13 utterances can't be read (speech-5.wav: there is no such file; speech-0.wav: "
            "there is no such file; speech-6.wav: there is no such file; speech-4.wav: there is no "
            "such file; speech-1.wav: there is no such file); python -m nemojax.data.validate lists "
            "everything wrong with manifests"
        ),
    ):
        list(islice(pipeline, 40))
    tried = pipeline._read + pipeline._failed
    assert pipeline._read >= read and pipeline._failed > tried / 2 and len(pipeline.unreadable) <= 7
    assert 2 * pipeline._failed - tried < 8  # not a batch later than needed


def test_wrong_arguments(plan):
    with pytest.raises(ConfigError, match=whole("workers must be at least 0, not -1")):
        Pipeline(plan, workers=-1)
    with Pipeline(plan, workers=0) as pipeline:
        pass
    with pytest.raises(DataError, match=whole("the data pipeline is closed")):
        next(pipeline)


def workers_of():
    return [child for child in multiprocessing.active_children() if "grain" in child.name]


def test_workers_make_the_same_batches_and_end(plan, tmp_path):
    """Also when a worker is killed: a new one continues at its step."""
    (tmp_path / "speech-2.wav").write_bytes(b"")
    want = list(islice(Pipeline(plan, start=2, workers=0, report=lambda sentence: None), 8))
    messages = []
    with Pipeline(plan, start=2, workers=1, report=messages.append) as pipeline:
        made = copied(islice(pipeline, 3))
        (worker,) = workers_of()
        os.kill(worker.pid, signal.SIGKILL)
        made += copied(islice(pipeline, 5))
    assert_same(made, want)
    assert "speech-2.wav: it is empty (0 bytes)" in messages[0] and len(messages) == 2
    assert "a data worker died" in messages[1]
    assert not workers_of()


class FakeWorker:
    """A worker in this process. Those whose number is in `dying` die when they are asked for a batch."""

    made: list["FakeWorker"]
    dying: set[int]

    def __init__(self, loader, start, stride, smallest_shared):
        self.steps, self.start, self.stride = pipeline_module._Steps(loader, start, stride), start, stride
        self.smallest_shared, self.taken, self.closed, self.number = smallest_shared, 0, False, len(self.made)
        self.made.append(self)

    def take(self):
        if self.number in self.dying:
            raise RuntimeError("process 1 terminated unexpectedly")
        self.taken += 1
        return self.steps[self.taken - 1]

    def close(self):
        self.closed = True


@pytest.fixture
def fake_workers(monkeypatch):
    monkeypatch.setattr(pipeline_module, "_Worker", FakeWorker)
    monkeypatch.setattr(pipeline_module, "_smallest_shared", lambda *_: 123)
    FakeWorker.made, FakeWorker.dying = [], set()
    return FakeWorker


def test_each_worker_makes_every_nth_batch(plan, tmp_path, fake_workers):
    (tmp_path / "speech-2.wav").write_bytes(b"")
    quiet = lambda sentence: None
    want = list(islice(Pipeline(plan, start=4, workers=0, report=quiet), 9))
    fake_workers.dying = {1}
    messages = []
    with Pipeline(plan, start=4, workers=3, report=messages.append) as pipeline:
        assert not fake_workers.made  # before the first batch is asked for
        assert_same(islice(pipeline, 9), want)
        assert list(pipeline.unreadable) == ["2: speech-2.wav"]
    starts = [(worker.start, worker.stride, worker.smallest_shared) for worker in fake_workers.made]
    assert starts == [(4, 3, 123), (5, 3, 123), (6, 3, 123), (5, 3, 123)]  # the second died at its first batch
    assert [worker.taken for worker in fake_workers.made] == [3, 0, 3, 3]
    assert all(worker.closed for worker in fake_workers.made)
    died = [message for message in messages if "died" in message]
    assert died == ["a data worker died; a new one prepares its batches from step 5 on"]


def test_deaths_count_until_a_batch_comes(plan, fake_workers):
    messages = []
    fake_workers.dying = {0, 1, 2, 4, 5}  # three in a row, twice
    with Pipeline(plan, workers=1, report=messages.append) as pipeline:
        next(pipeline)
        fake_workers.dying |= {3}
        next(pipeline)
        assert len(messages) == 6 and fake_workers.made[-1].number == 6
    FakeWorker.made, FakeWorker.dying = [], set(range(9))
    with Pipeline(plan, start=2, workers=2, report=messages.append) as pipeline, pytest.raises(DataError) as caught:
        next(pipeline)
    assert str(caught.value) == (
        "data workers died 4 times at step 2 (process 1 terminated unexpectedly); "
        "if memory is short, use fewer workers or smaller batches"
    )


def test_other_errors_of_workers_are_raised(plan, fake_workers, monkeypatch):
    def take(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(fake_workers, "take", take)
    with Pipeline(plan, workers=1) as pipeline, pytest.raises(RuntimeError, match=whole("a bug")):
        next(pipeline)


def test_a_future_has_the_next_batch_or_its_error():
    future = Future()
    pipeline_module._fulfill(future, iter([{"a": 1}]))
    assert future.result() == {"a": 1}
    future = Future()
    pipeline_module._fulfill(future, iter([]))
    assert isinstance(future.exception(), StopIteration)


def test_room_in_shared_memory(plan, tmp_path, monkeypatch):
    """Each worker has the batches that it keeps ready, the one it makes, and the one in use."""
    loader, messages = Loader(plan, 0, 1), []
    largest = max(bucket.frames * bucket.batch for bucket in plan.buckets) * CONFIG.frame_samples * 4
    needed = largest * 3 * 4
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(pipeline_module, "SHARED_MEMORY", tmp_path)
    for free, expected in ((needed, 2**16), (needed - 1, 2**40)):
        monkeypatch.setattr(pipeline_module.shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        assert pipeline_module._smallest_shared(loader, 3, messages.append) == expected
    size = f"{needed / 2**20:.0f} MiB"
    assert messages == [
        f"{tmp_path} has {size} free and {size} may be needed; batches go through pipes, which is slower"
    ]
    monkeypatch.setattr(pipeline_module, "SHARED_MEMORY", tmp_path / "none")
    assert pipeline_module._smallest_shared(loader, 3, messages.append) == 2**16 and len(messages) == 1


def test_utterances_that_are_not_trained_on_are_not_checked(plan, monkeypatch):
    monkeypatch.setattr(pipeline_module, "CHECKED", 4)
    plan.unfit, decoded = np.array([1, 4]), []
    monkeypatch.setattr(Loader, "decode", lambda self, utterance: decoded.append(utterance))
    Pipeline(plan, workers=0)
    assert len(set(decoded)) == len(decoded) == 4 and set(decoded) <= {0, 2, 3, 5, 6}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_nothing(plan, workers):
    want = list(islice(Pipeline(plan, workers=0), 12))
    with Pipeline(plan, workers=workers) as pipeline:
        assert_same(copied(islice(pipeline, 12)), want)


@pytest.mark.slow
def test_workers_killed_again_and_again(plan):
    """At random moments, also while they hand over a batch."""
    want, made = list(islice(Pipeline(plan, workers=0), 40)), []
    rng, messages = np.random.default_rng(0), []
    with Pipeline(plan, workers=2, report=messages.append) as pipeline:
        for count in range(40):
            made += copied([next(pipeline)])
            if count % 8 == 3:
                time.sleep(rng.uniform(0, 0.05))
                os.kill(rng.choice([child.pid for child in workers_of()]), signal.SIGKILL)
    assert_same(made, want)
    assert 1 <= len(messages) <= 5


@pytest.mark.slow
def test_workers_that_die_at_once_are_an_error(plan, monkeypatch):
    monkeypatch.setattr(pipeline_module, "_begin_worker", _die)
    with Pipeline(plan, workers=1, report=lambda sentence: None) as pipeline:  # noqa: SIM117
        with pytest.raises(DataError, match="data workers died 4 times at step 0"):
            next(pipeline)


def _die(index: int, count: int) -> None:
    os._exit(9)


@pytest.mark.slow
def test_pipes_replace_shared_memory_that_is_too_small(plan, monkeypatch):
    monkeypatch.setattr(pipeline_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20})())
    messages, want = [], list(islice(Pipeline(plan, workers=0), 3))
    with Pipeline(plan, workers=1, report=messages.append) as pipeline:
        assert_same(islice(pipeline, 3), want)
    assert "has 1 MiB free" in messages[0] and "through pipes" in messages[0]


MAIN = """
import sys, time
from tests.data.test_pipeline import CONFIG, Pipeline, Plan, PlanConfig, Source, Tokenizer, load_corpus, workers_of
from pathlib import Path

if __name__ == "__main__":
    tokenizer = Tokenizer(Path(sys.argv[2]).read_bytes())
    plan = Plan(load_corpus([Source(Path(sys.argv[1]))], tokenizer, CONFIG), CONFIG)
    pipeline = Pipeline(plan, workers=2)
    next(pipeline)
    print(*[child.pid for child in workers_of()], flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
def test_workers_end_with_a_main_process_that_is_killed(tmp_path, pieces):
    manifest = write_speech(tmp_path, "speech", TEXTS)
    (tmp_path / "pieces.model").write_bytes(pieces)
    (tmp_path / "main.py").write_text(MAIN)
    root = Path(__file__).parents[2]
    command = [sys.executable, str(tmp_path / "main.py"), str(manifest), str(tmp_path / "pieces.model")]
    main = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}, text=True)
    assert main.stdout is not None
    pids = [int(pid) for pid in main.stdout.readline().split()]
    assert len(pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pids)
    main.kill()
    main.wait()
    deadline = time.monotonic() + 300  # not a measure: only ends a test whose workers never end
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
