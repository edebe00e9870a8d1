"""The exported ONNX graph, run by onnxruntime, against nemojax itself; needs the extra `onnx`."""

import ast
import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import nemojax
from convert import onnx_example, onnx_step
from convert.__main__ import main
from convert.errors import ConvertError
from nemojax import checkpoint
from nemojax.bundled import EXAMPLE, SMALL
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill
from nemojax.streaming import Segment, init_state, prepare, step
from tests.convert.samples import SMALLEST, arrays, tokenizer
from tests.helpers.messages import whole

LOOKAHEAD, STREAMS = 0, 2  # not the first of the settings, whose rings are larger
CHUNK = SMALLEST.chunk_samples(LOOKAHEAD)
MISSING = "ONNX needs jax2onnx (pip install 'nemojax[onnx]'): import of {0} halted; None in sys.modules"


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A native checkpoint with random weights."""
    directory = tmp_path_factory.mktemp("native") / "model"
    checkpoint.save(directory, fill(SMALLEST, arrays(SMALLEST)), tokenizer(SMALLEST.vocabulary), {"format": "nemo"})
    return directory


@pytest.fixture(scope="module")
def exported(native, tmp_path_factory):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (pip install 'nemojax[onnx]')")
    directory = tmp_path_factory.mktemp("exported") / "out"
    onnx_step.write(native, directory, LOOKAHEAD, STREAMS)
    return directory


def manifest_of(directory) -> dict:
    return json.loads((directory / "manifest.json").read_text())


def streamed(recognizer, samples, lookahead) -> list[int]:
    """Returns the labels of nemojax's own stream."""
    stream = recognizer.stream(lookahead)
    stream.push(samples)
    return list(stream.finish().tokens)


@pytest.mark.slow
def test_labels_are_those_of_nemojax(native, exported):
    """Of three recordings with two streams: the last chunk of one is not whole, one has a single sample."""
    rng = np.random.default_rng(0)
    lengths = (5 * CHUNK + 5, 1, 6 * CHUNK - SMALLEST.history_samples)
    recordings = [rng.normal(scale=0.1, size=length).astype(np.float32) for length in lengths]
    recognizer = nemojax.load(native)
    expected = [streamed(recognizer, samples, LOOKAHEAD) for samples in recordings]
    assert len(expected[0]) > 5 and len(expected[2]) > 5
    assert onnx_example.transcribe(exported, recordings) == expected


def test_recordings_go_in_groups_of_as_many_as_the_step_has_streams(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text(json.dumps({"file": "step.onnx", "streams": 2}))
    runtime = SimpleNamespace(InferenceSession=lambda *file, **options: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    lengths = lambda session, manifest, recordings: [[len(samples)] for samples in recordings]
    monkeypatch.setattr(onnx_example, "_transcribe_batch", lengths)
    assert onnx_example.transcribe(tmp_path, [np.zeros(length) for length in (3, 1, 2)]) == [[3], [1], [2]]


@pytest.mark.slow
def test_state_and_emission_are_those_of_the_step(native, exported):
    """After two chunks, with a row that is reset and one that is inactive in a third."""
    import onnxruntime

    manifest, model = manifest_of(exported), checkpoint.load(native)[0]
    constants = prepare(model)
    state = init_state(model, constants, STREAMS, lookahead=LOOKAHEAD)
    found = onnx_example.initial_state(manifest)
    for array, expected in zip(found.values(), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    session = onnxruntime.InferenceSession(exported / "step.onnx")
    outputs = [output.name for output in session.get_outputs()]
    assert outputs == [entry["next"] for entry in manifest["state"]] + [entry["name"] for entry in manifest["emission"]]
    rng = np.random.default_rng(1)
    for active, reset in (((True, True), (False, False)),) * 2 + (((True, False), (True, False)),):
        segment = Segment(
            rng.normal(scale=0.1, size=(STREAMS, CHUNK)).astype(np.float32),
            np.array([CHUNK, CHUNK - 7], np.int32),
            np.array(active),
            np.array(reset),
        )
        results = dict(zip(outputs, session.run(None, found | segment._asdict()), strict=True))
        found = {entry["name"]: results[entry["next"]] for entry in manifest["state"]}
        state, emission = step(model, constants, state, jax.tree.map(jnp.asarray, segment), LOOKAHEAD)
        for (name, array), expected in zip(found.items(), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4, err_msg=name)
        for name in ("labels", "frames", "length"):
            np.testing.assert_array_equal(results[f"emission.{name}"], getattr(emission, name), strict=True)
        np.testing.assert_allclose(results["emission.log_probs"], emission.log_probs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_directory(native, exported):
    assert {path.name for path in exported.iterdir()} == {
        *("manifest.json", "run.py", "step.onnx", "step.weights", "tokenizer.model")
    }
    manifest = manifest_of(exported)
    names = lambda key: [entry["name"] for entry in manifest[key]]
    assert {"position", "features.overlap", "encoder.blocks.0.attention.keys.frames"} <= set(names("state"))
    assert names("segment") == ["samples", "length", "active", "reset"]
    assert names("emission") == ["emission.labels", "emission.frames", "emission.log_probs", "emission.length"]
    assert manifest["segment"][0] == {"name": "samples", "shape": [STREAMS, CHUNK], "dtype": "float32"}
    assert (manifest["lookahead"], manifest["streams"], manifest["chunk_samples"]) == (LOOKAHEAD, STREAMS, CHUNK)
    assert manifest["usage"] == list(onnx_step.USAGE) and manifest["blank"] == SMALLEST.vocabulary
    assert (exported / "tokenizer.model").read_bytes() == tokenizer(SMALLEST.vocabulary)


def test_refusals(native, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for name in ("onnx_ir", "jax2onnx"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConvertError, match=whole(MISSING.format(name))):
            onnx_step.write(native, out)
        monkeypatch.setitem(sys.modules, name, object())
    with pytest.raises(ConvertError, match=whole("streams is 0; a step needs at least 1")):
        onnx_step.write(native, out, streams=0)
    with pytest.raises(
        ConfigError,
        match=whole(
            "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
            "model was trained with (1, 0)"
        ),
    ):
        onnx_step.write(native, out, 2)
    assert not out.exists()


def test_flags_reach_the_export(native, tmp_path, monkeypatch):
    """Without flags: the first trained look-ahead and one stream."""
    calls = []

    def export_step(native, constants, lookahead, streams):
        calls.append((lookahead, streams))
        raise ConvertError("enough")

    monkeypatch.setattr(onnx_step, "_imported", lambda name: None)
    monkeypatch.setattr(onnx_step, "export_step", export_step)
    for flags in ((), ("--lookahead", "0", "--streams", "3")):
        with pytest.raises(SystemExit):
            main(["onnx", str(native), str(tmp_path / "out"), *flags])
    assert calls == [(SMALLEST.encoder.lookaheads[0], 1), (0, 3)]
    assert list(tmp_path.iterdir()) == []


def test_the_example_imports_onnxruntime_and_numpy_only():
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(onnx_example))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"onnxruntime", "numpy"}


@pytest.mark.slow
def test_the_small_model_runs_without_nemojax_and_jax(tmp_path):
    """By the commands of a user: the export, then the example in a process that can import neither."""
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (pip install 'nemojax[onnx]')")
    lookahead, out = 6, tmp_path / "out"
    main(["onnx", str(SMALL), str(out), "--lookahead", str(lookahead)])
    samples, _ = soundfile.read(EXAMPLE, dtype="float32")
    np.save(tmp_path / "example.npy", samples)
    blocked = "import runpy, sys; sys.modules['nemojax'] = sys.modules['jax'] = None; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"]
    arguments = [out / "run.py", out, tmp_path / "example.npy"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    expected = streamed(nemojax.load(), samples, lookahead)
    assert len(expected) > 20 and [json.loads(line) for line in done.stdout.splitlines()] == [expected]
