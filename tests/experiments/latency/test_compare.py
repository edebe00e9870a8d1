import math

import librosa
import numpy as np
import pytest

from experiments.latency import compare
from experiments.latency.compare import off, read_rate
from experiments.latency.contender import GreedySearch, Step, in_batches, timed_steps
from experiments.latency.ours import Nemojax, log_mel_of
from experiments.latency.process import ContenderError, ContenderProcess
from experiments.latency.report import (
    batch_table,
    fastest,
    floor,
    percentiles,
    plot,
    ratios,
    start_table,
    stream_table,
    verdicts,
)
from experiments.latency.weights import read_speech


def stream_row(contender: str, repeat: int, whole_s: float, lookahead: int = 6) -> dict:
    return {
        "kind": "stream",
        "contender": contender,
        "lookahead": lookahead,
        "chunk_ms": 80.0 * (lookahead + 1),
        "repeat": repeat,
        "frames": 70,
        **percentiles([(whole_s, whole_s / 2, whole_s / 4)] * 10),
        "real_time_factor": whole_s / 0.56,
        "labels": 21,
        "labels_off": 0.0,
        "peak_bytes": 3_000_000_000,
    }


ROWS = [
    stream_row("nemojax float32", 0, 0.10),
    stream_row("nemojax float32", 1, 0.12),
    stream_row("nemojax bfloat16", 0, 0.05),
    stream_row("nemojax bfloat16", 1, 0.06),
    stream_row("NeMo float32", 0, 0.20),
    stream_row("NeMo float32", 1, 0.18),
    stream_row("onnxruntime int8", 0, 0.10),
    stream_row("onnxruntime int8", 1, 0.09),
]


def test_percentiles_of_each_part():
    found = percentiles([(0.3, 0.2, 0.1), (0.1, 0.06, 0.04), (0.2, 0.1, 0.1)])
    assert found["whole"]["p50"] == 0.2 and found["encoder"]["p50"] == 0.1 and found["decoder"]["p50"] == 0.1
    assert found["whole"]["p99"] == pytest.approx(0.298) and found["whole"]["p95"] == pytest.approx(0.29)


def test_a_contender_without_parts_has_its_whole_step_alone():
    row = ROWS[0] | {"contender": "sherpa-onnx int8"} | percentiles([(0.3, math.nan, math.nan)] * 3)
    assert set(percentiles([(0.3, math.nan, math.nan)])) == {"whole"}
    row = {key: value for key, value in row.items() if key not in ("encoder", "decoder")}
    line = next(line for line in stream_table([*ROWS, row]).splitlines() if "sherpa" in line)
    assert [cell.strip() for cell in line.split("|")][2:7] == ["300.0", "300.0", "300.0", "", ""]


def test_the_fastest_is_that_of_the_least_median():
    assert fastest(ROWS, 6, ours=True) == "nemojax bfloat16"
    assert fastest(ROWS, 6, ours=False) == "onnxruntime int8"
    assert fastest(ROWS, 0, ours=False) is None
    only_ours = [row for row in ROWS if row["contender"].startswith("nemojax")]
    assert fastest(only_ours, 6, ours=False) is None


def test_ratios_pair_measurements_of_the_same_repeat():
    assert ratios(ROWS, "NeMo float32", "nemojax bfloat16", 6) == pytest.approx([4.0, 3.0])
    assert verdicts(ROWS) == [
        "look-ahead 6: the fastest peer, onnxruntime int8, takes 1.75 [1.50, 2.00] times as long as nemojax bfloat16"
    ]


def test_tables_have_a_line_for_each_contender():
    lines = stream_table(ROWS).splitlines()
    assert len(lines) == 2 + 4
    cells = [cell.strip() for cell in lines[2 + 2].split("|")[1:-1]]
    assert cells == [
        *("6, NeMo float32", "190.0 [180.0, 200.0]", "190.0 [180.0, 200.0]", "190.0 [180.0, 200.0]"),
        *("95.0 [90.0, 100.0]", "47.5 [45.0, 50.0]", "0.339 [0.321, 0.357]", "3.50 [3.00, 4.00]"),
        *("0.30", "0.0", "3.0"),
    ]
    starts = [
        {
            "kind": "start",
            "contender": "nemojax float32",
            "lookahead": 0,
            "cache": cache,
            "repeat": 0,
            "loaded_s": 2.0,
            "first_s": first_s,
        }
        for cache, first_s in (("none", 30.0), ("kept", 4.0))
    ]
    assert [line.split("|")[3:6] for line in start_table(starts).splitlines()[2:]] == [
        [" none ", " 2.0 ", " 30.0 "],
        [" kept ", " 2.0 ", " 4.0 "],
    ]
    batch = {"kind": "batch", "contender": "NeMo float32", "what": "mixed", "lookahead": 13, "batch_size": 4}
    batch |= {"repeat": 0, "seconds": 4.0, "audio_s": 80.0, "labels_off": None, "peak_bytes": 1}
    assert batch_table([batch]).splitlines()[2] == "| NeMo float32 | mixed | 13 | 4 | 4.00 | 20.0 |  |"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_plot_is_the_same_for_the_same_rows(tmp_path, kind):
    rows = ROWS + [stream_row(row["contender"], row["repeat"], 0.03, lookahead=0) for row in ROWS]
    for name in "ab":
        plot(rows, tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
    assert first == second and len(first) > 5_000


def test_labels_off_are_edits():
    assert off([1, 2, 3], [1, 2, 3]) == 0.0
    assert off([1, 3], [1, 2, 3]) == pytest.approx(1 / 3, abs=1e-5)
    assert off([1], None) is None and off([], []) is None


def test_the_floor_is_bytes_over_the_rate():
    row = {"kind": "floor", "bytes_per_second": 10e9, "encoder_parameters": 600_000_000, "parameters": 618_000_000}
    assert floor([row]) == (
        "floor: 600M weights of the encoder, read once a step at 10.0 GB/s: "
        "240.0 ms in float32, 120.0 ms in bfloat16, 60.0 ms in int8"
    )


def test_the_rate_of_memory_is_bytes_over_the_shortest_pass(monkeypatch):
    clock = iter([0, 5, 10, 12, *range(20, 30)])
    monkeypatch.setattr(compare.time, "perf_counter", lambda: next(clock))
    assert read_rate(threads=2, megabytes=8) == 8 * 2**20  # the others take 5 and 2 s


def test_greedy_search_is_the_double_loop_and_continues_from_chunk_to_chunk():
    rng = np.random.default_rng(0)
    logits, states = rng.standard_normal((12, 40, 5)), []

    def predict(label: int, state: int | None) -> tuple[int, int]:
        now = 0 if state is None else (state * 5 + label + 1) % 40
        states.append(now)
        return now, now

    best = lambda frame, prediction: int(logits[frame, prediction].argmax())
    search = GreedySearch(4, lambda frames: frames, predict, best)
    found = sum((search(range(begin, begin + 3)) for begin in range(0, 12, 3)), ())

    expected, state = [], 0
    for frame in range(12):
        for _ in range(10):
            label = int(logits[frame, state].argmax())
            if label == 4:
                break
            expected.append(label)
            state = (state * 5 + label + 1) % 40
    assert found == tuple(expected) and len(expected) > 5
    assert len(states) == len(expected) + 1  # the prediction network runs once per label


def test_the_parts_of_a_peers_step_make_up_the_whole():
    steps = list(timed_steps([1, 2], lambda chunk: chunk * 10, lambda encoded: (encoded,)))
    assert [step.tokens for step in steps] == [(10,), (20,)]
    assert all(step.whole_s == pytest.approx(step.encoder_s + step.decoder_s) for step in steps)


def test_batches_hold_recordings_of_like_length():
    recordings = [np.zeros(n) for n in (5, 1, 4, 2, 3)]
    assert list(in_batches(recordings, 2)) == [[1, 3], [4, 2], [0]]


def test_speech_is_of_the_lengths_asked_for(tmp_path):
    made = read_speech((), [0.5, 2.0], seed=1)
    assert [len(samples) for samples in made] == [8_000, 32_000]
    assert all(np.abs(samples).max() > 0.01 for samples in made)


@pytest.fixture(scope="module")
def work(tmp_path_factory, checkpoint_directory):
    """The weights and recordings of nemojax alone."""
    directory = tmp_path_factory.mktemp("work")
    (directory / "native").symlink_to(checkpoint_directory)
    np.savez(directory / "recordings.npz", *read_speech((), [3.0], seed=0))
    return directory


def test_our_steps_have_the_labels_of_a_stream(work):
    contender = Nemojax(work, "float32")
    [samples] = read_speech((), [3.0], seed=0)
    for lookahead in (1, 0):
        steps = list(contender.stream(samples, lookahead))
        assert len(steps) == (len(samples) + 1080) // (1280 * (lookahead + 1))
        assert all(min(step[:3]) > 0 for step in steps)
        stream = contender._recognizer.stream(lookahead)
        pushed = stream.push(samples)
        assert sum((step.tokens for step in steps), ()) == pushed.tokens
        untimed = list(contender.stream(samples, lookahead, parts=False))
        assert [step.tokens for step in untimed] == [step.tokens for step in steps]
        assert all(math.isnan(step.encoder_s) for step in untimed)


def test_log_mel_for_peers_is_librosas():
    [samples] = read_speech((), [0.5], seed=0)
    found = log_mel_of(samples, 80)
    emphasized = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    window = np.hanning(400)
    spectrum = librosa.stft(emphasized, n_fft=512, hop_length=160, win_length=400, window=window, pad_mode="constant")
    filters = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80)
    expected = np.log(filters @ np.abs(spectrum) ** 2 + 2.0**-24).T
    assert len(found) == 50
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-3)


def test_a_contender_answers_in_a_process_of_its_own(work):
    process = ContenderProcess("nemojax float32", work, threads=1)
    try:
        answer = process.ask(do="stream", recording=0, lookahead=1)
        again = process.ask(do="first", recording=0, lookahead=1)
        batch = process.ask(do="batch", recordings=[0, 0], lookahead=1, batch_size=2)
    finally:
        process.close()
    assert len(answer["steps"]) == 19 and answer["peak_bytes"] > 1e7
    assert answer["tokens"][: len(again["tokens"])] == again["tokens"]
    assert batch["tokens"][0] == batch["tokens"][1] and batch["seconds"] > 0


def test_a_contender_that_fails_names_the_reason(tmp_path):
    with pytest.raises(ContenderError, match=r"nemojax float32: .*recordings\.npz"):
        ContenderProcess("nemojax float32", tmp_path, threads=1)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--contenders", "kaldi"], "kaldi"),
        (["--size", "huge"], "huge"),
        (["--lookaheads", "2"], "2 is none of"),
        (["--repeats", "0"], "at least 1"),
        (["--plot", "latency.txt"], "svg, png, pdf"),
    ],
)
def test_a_wrong_setting_is_an_error(capsys, tmp_path, arguments, complaint):
    assert compare.main([str(tmp_path), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_step_names_its_parts():
    assert Step._fields == ("whole_s", "encoder_s", "decoder_s", "tokens")
