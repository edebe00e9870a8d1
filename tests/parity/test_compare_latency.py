"""The contenders of `experiments.latency.compare` say the same, on a tiny model's weights."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.parity
pytest.importorskip("onnxruntime", reason="the contenders that run ONNX graphs need onnxruntime")
pytest.importorskip("openvino", reason="two contenders are OpenVINO")
pytest.importorskip("sherpa_onnx", reason="two contenders are sherpa-onnx")

from experiments.latency import compare, weights  # noqa: E402
from experiments.latency.graph_peers import LayersContender  # noqa: E402
from experiments.latency.worker import CONTENDERS, answer  # noqa: E402

SECONDS = [2.4, 4.1]
EXACT = ["nemojax float32", "transformers float32", "NeMo float32"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("latency")
    weights.prepare("tiny", 3, weights.read_speech((), SECONDS, 3), directory, onnx=True)
    return directory


@pytest.fixture(scope="module")
def recordings(work):
    with np.load(work / "recordings.npz") as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def contenders(work):
    return {name: load(work, dtype, 1) for name, (load, dtype) in CONTENDERS.items()}


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_streams_in_float32_say_the_same(contenders, recordings, lookahead):
    request = {"do": "stream", "recording": 1, "lookahead": lookahead}
    ours, *theirs = (answer(contenders[name], recordings, request) for name in EXACT)
    assert len(ours["tokens"]) > 2
    for name, other in zip(EXACT[1:], theirs, strict=True):
        assert len(other["steps"]) == len(ours["steps"]), name
        # NeMo's stream at look-ahead 0 has log-mel frames of zeros before its second chunk
        if (name, lookahead) != ("NeMo float32", 0):
            assert other["tokens"] == ours["tokens"], name


def test_recordings_in_float32_say_the_same(contenders, recordings):
    request = {"do": "batch", "recordings": [0, 1, 0], "lookahead": 6, "batch_size": 2}
    tokens = [answer(contenders[name], recordings, request)["tokens"] for name in EXACT]
    assert [list(t) for t in tokens[0]] == [list(t) for t in tokens[1]] == [list(t) for t in tokens[2]]
    assert list(tokens[0][0]) == list(tokens[0][2])


@pytest.mark.parametrize("name", ["onnxruntime float32", "OpenVINO float32"])
@pytest.mark.parametrize("lookahead", [6, 0])
def test_the_graph_is_nemos_step(contenders, recordings, lookahead, name):
    """Given the same windows, the first with zeros before the recording, and the same caches."""
    import torch

    contender: LayersContender = contenders[name]
    encode, nemo = contender._opened(lookahead), contenders["NeMo float32"]
    nemo._look_ahead(lookahead)
    encoder, metadata = nemo._model.encoder, encode.metadata
    window = int(metadata["window"])
    rng = np.random.default_rng(0)
    caches = {
        name: np.zeros(json.loads(metadata[name]), np.float32) for name in ("cache_last_channel", "cache_last_time")
    }
    caches["cache_last_channel_len"] = np.zeros(1, np.int64)
    theirs = encoder.get_initial_cache_state(batch_size=1)
    for _ in range(3):
        signal = rng.standard_normal((1, 128, window)).astype(np.float32)
        encoded, _, *after = encode({"audio_signal": signal, "length": np.array([window]), **caches})
        caches.update(zip(caches, after, strict=True))
        with torch.no_grad():
            expected, _, *theirs = encoder.cache_aware_stream_step(
                processed_signal=torch.from_numpy(signal),
                processed_signal_length=torch.tensor([window]),
                cache_last_channel=theirs[0],
                cache_last_time=theirs[1],
                cache_last_channel_len=theirs[2],
                keep_all_outputs=False,
                drop_extra_pre_encoded=encoder.streaming_cfg.drop_extra_pre_encoded,
            )
        np.testing.assert_allclose(encoded, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime float32", "onnxruntime int8", "OpenVINO float32", "OpenVINO bfloat16"])
def test_graphs_get_every_chunk(contenders, recordings, name):
    for lookahead in (6, 0):
        request = {"do": "stream", "recording": 1, "lookahead": lookahead}
        steps = answer(contenders[name], recordings, request)["steps"]
        assert len(steps) == len(answer(contenders[EXACT[0]], recordings, request)["steps"])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_sherpa_onnx_gets_every_chunk_but_those_that_its_first_window_waits_for(contenders, recordings, dtype):
    for lookahead in (6, 0):
        request = {"do": "stream", "recording": 1, "lookahead": lookahead}
        said = answer(contenders[f"sherpa-onnx {dtype}"], recordings, request)
        missing = len(answer(contenders[EXACT[0]], recordings, request)["steps"]) - len(said["steps"])
        assert 0 < missing <= 3  # a window is at least 17 log-mel frames, a chunk at least 8
        assert said["tokens"] and max(said["tokens"]) < contenders["onnxruntime float32"]._blank


def test_the_command(tmp_path, capsys):
    """All of it, on two contenders: a row for every measurement, the tables, the plot."""
    arguments = [str(tmp_path / "work"), "--size", "tiny", "--contenders", "nemojax float32", "transformers float32"]
    arguments += ["--lookaheads", "6", "0", "--repeats", "2", "--steps", "4", "--starts", "1", "--threads", "1"]
    arguments += ["--batch-seconds", "2.0", "1.0", "--seconds", "3"]
    arguments += ["--output", str(tmp_path / "rows.jsonl"), "--plot", str(tmp_path / "plot.svg")]
    assert compare.main(arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in ("floor", "start", "stream", "batch")}
    assert counts == {"floor": 1, "start": 3, "stream": 2 * 2 * 2, "batch": 2 * 2 * 2}
    assert all(row["labels_off"] == 0 for row in rows if row["kind"] in ("stream", "batch"))
    assert all(row["versions"]["jax"] and row["cpu"] for row in rows)
    shown = capsys.readouterr().out
    assert "the fastest peer, transformers float32, takes" in shown and "floor: " in shown
    assert (tmp_path / "plot.svg").stat().st_size > 5_000
