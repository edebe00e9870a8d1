import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import pytest

from experiments.speed import growth, growth_bench, growth_threads
from nemojax.config import PRESETS
from nemojax.recognition.stream_batch import StreamBatch

SMALL = ["--preset", "tiny", "--grow-streams", "3", "1", "--grow-left-context-frames", "14", "--grow-lookahead", "0"]
SMALL += ["--grow-engine-streams", "2", "--grow-threads", "4096", "--grow-seconds", "1.0"]
SMALL += ["--repeats", "2", "--steps", "2"]


def test_a_row_for_each_point(tmp_path, capsys):
    output, plot = tmp_path / "rows.jsonl", tmp_path / "plot.svg"
    assert growth.main([*SMALL, "--output", str(output), "--plot", str(plot)]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["grows"], row["value"]) for row in rows] == [
        *(("streams", 3), ("streams", 1), ("engine_streams", 2)),
        *(("left_context_frames", 14), ("lookahead", 0), ("seconds", 1.0)),
    ]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    assert plot.stat().st_size > 5_000


@pytest.mark.slow  # a process of its own
def test_threads_are_cores_of_a_process_of_their_own(tmp_path):
    arguments = [*SMALL[:2], "--grow-streams", "--grow-engine-streams", "--grow-threads", "1"]
    arguments += ["--grow-left-context-frames", "--grow-lookahead", "--grow-seconds", "--repeats", "2"]
    assert growth.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 0
    [row] = (json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (row["grows"], row["value"]) == ("threads", 1) and min(row["seconds"]) > 0


def test_cores_of_a_process():
    with ExitStack() as processes:
        context = multiprocessing.get_context("spawn")
        pool = processes.enter_context(ProcessPoolExecutor(1, context, growth_threads._limit, (1,)))
        assert pool.submit(os.sched_getaffinity, 0).result() == {min(os.sched_getaffinity(0))}


def test_long_measurements_are_not_repeated(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "LONG_S", 0.0)
    arguments = [*SMALL[:5], "--grow-engine-streams", "--grow-threads", "--grow-left-context-frames"]
    arguments += ["--grow-lookahead", "--grow-seconds", "--repeats", "2", "--steps", "1"]
    assert growth.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [len(row["seconds"]) for row in rows] == [1, 1]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_steps_give_no_labels(monkeypatch, dtype):
    labels, step = [], StreamBatch.step

    def noting(batch, given):
        emission = step(batch, given)
        labels.append(int(emission.length.max()))
        return emission

    monkeypatch.setattr(StreamBatch, "step", noting)
    growth_bench.Bench(PRESETS["tiny"], dtype, steps=2, seed=0).step(3, PRESETS["tiny"], 6)()
    assert labels and not any(labels)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--preset", "huge"], "none of 0.6b"),
        (["--grow-lookahead", "2"], "lookahead 2 does not fit"),
        (["--grow-left-context-frames", "15"], "does not fit"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(capsys, arguments, complaint):
    assert growth.main(arguments) == 2
    assert complaint in capsys.readouterr().err
