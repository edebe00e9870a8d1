"""The exported step against nemojax itself; the slow test runs it in a process that can't import nemojax."""

import ast
import inspect
import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
import soundfile

import nemojax
from convert import stablehlo, stablehlo_example
from convert.__main__ import main
from convert.errors import ConvertError
from nemojax import checkpoint
from nemojax.bundled import EXAMPLE, SMALL
from nemojax.errors import ConfigError
from nemojax.kernels import quantization
from nemojax.metrics import word_errors
from nemojax.model.parameters import fill, named_parameters
from nemojax.streaming import init_state, prepare
from tests.convert.samples import SMALLEST, arrays, tokenizer
from tests.helpers.messages import ending, whole

LOOKAHEAD = 1
CHUNK = SMALLEST.chunk_samples(LOOKAHEAD)
# of the longest, the last chunk is not whole; the second has a single sample; the third ends with its last chunk
LENGTHS = (4 * CHUNK + 5, 1, 3 * CHUNK - SMALLEST.history_samples)


@pytest.fixture(scope="module", autouse=True)
def symbolic_batch():
    """A symbolic batch size is not an int, so the run-time checks of annotations are off in this module."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A native checkpoint with random weights."""
    directory = tmp_path_factory.mktemp("native") / "model"
    checkpoint.save(directory, fill(SMALLEST, arrays(SMALLEST)), tokenizer(SMALLEST.vocabulary), {"format": "nemo"})
    return directory


@pytest.fixture(scope="module")
def exported(native, tmp_path_factory):
    """The exported step for all platforms, with its weights in a file."""
    directory = tmp_path_factory.mktemp("exported") / "out"
    stablehlo.write(native, directory, (LOOKAHEAD,), platforms=("cpu", "cuda", "tpu"), mlir=True)
    return directory


@pytest.fixture(scope="module")
def recordings():
    rng = np.random.default_rng(0)
    return [rng.normal(scale=0.1, size=length).astype(np.float32) for length in LENGTHS]


def manifest_of(directory) -> dict:
    return json.loads((directory / "manifest.json").read_text())


def streamed(recognizer, samples, lookahead) -> list[int]:
    """Returns the labels of nemojax's own stream."""
    stream = recognizer.stream(lookahead)
    stream.push(samples)
    return list(stream.finish().tokens)


def test_labels_are_those_of_nemojax(native, exported, recordings):
    recognizer = nemojax.load(native)
    expected = [streamed(recognizer, samples, LOOKAHEAD) for samples in recordings]
    assert len(expected[0]) > 5 and len(expected[2]) > 5
    assert stablehlo_example.transcribe(exported, recordings, LOOKAHEAD) == expected


@pytest.mark.parametrize("lookahead,file", [(None, "six"), (6, "six"), (0, "zero")])
def test_the_example_takes_the_step_of_a_lookahead(tmp_path, lookahead, file):
    steps = [{"lookahead": 6, "file": "six"}, {"lookahead": 0, "file": "zero"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"steps": steps}))
    with pytest.raises(FileNotFoundError) as error:
        stablehlo_example.transcribe(tmp_path, [], lookahead)
    assert error.value.filename == str(tmp_path / file)


def test_weights_inside(native, exported, tmp_path):
    stablehlo.write(native, tmp_path / "out", (LOOKAHEAD,), weights="inside")
    manifest = manifest_of(tmp_path / "out")
    assert manifest["weights"] == [] and manifest["weights_file"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("manifest.json", "run.py", "step-1.stablehlo", "tokenizer.model")
    }
    inside, beside = ((directory / "step-1.stablehlo").read_bytes() for directory in (tmp_path / "out", exported))
    weights = (exported / "weights.safetensors").stat().st_size
    assert len(inside) > 0.9 * weights and len(beside) + 0.9 * weights < len(inside) + 50_000
    arguments, all_arguments = (len(jax.export.deserialize(bytearray(data)).in_avals) for data in (inside, beside))
    assert arguments == all_arguments - len(manifest_of(exported)["weights"])


def test_directory(native, exported):
    assert {path.name for path in exported.iterdir()} == {
        *("manifest.json", "run.py", "step-1.mlir", "step-1.stablehlo", "tokenizer.model", "weights.safetensors")
    }
    assert (exported / "manifest.json").read_text().endswith("}\n")
    assert (exported / "step-1.mlir").read_bytes().startswith(b"ML\xefR")  # MLIR bytecode
    assert (exported / "tokenizer.model").read_bytes() == tokenizer(SMALLEST.vocabulary)
    step = jax.export.deserialize(bytearray((exported / "step-1.stablehlo").read_bytes()))
    assert step.platforms == ("cpu", "cuda", "tpu") and step.mlir_module_serialized == (
        (exported / "step-1.mlir").read_bytes()
    )


def test_manifest_lists_arguments_and_results(native, exported):
    """In the order of the step, with its shapes and types; names are paths in the model and in the state."""
    manifest = manifest_of(exported)
    (entry,) = manifest["steps"]
    step = jax.export.deserialize(bytearray((exported / entry["file"]).read_bytes()))
    described = lambda avals: [([str(n) for n in aval.shape], str(aval.dtype)) for aval in avals]
    listed = lambda entries: [([str(n) for n in entry["shape"]], entry["dtype"]) for entry in entries]
    assert listed(manifest["weights"] + manifest["state"] + entry["segment"]) == described(step.in_avals)
    assert listed(manifest["state"] + entry["emission"]) == described(step.out_avals)
    names = lambda entries: [entry["name"] for entry in entries]
    model = checkpoint.load(native)[0]
    parameters = list(named_parameters(model))
    assert names(manifest["weights"])[: len(parameters)] == parameters
    assert all(name.startswith("constants.") for name in names(manifest["weights"])[len(parameters) :])
    assert {"position", "features.overlap", "encoder.blocks.0.attention.keys.frames"} <= set(names(manifest["state"]))
    assert names(entry["segment"]) == ["samples", "length", "active", "reset"]
    assert names(entry["emission"])[:2] == ["labels", "frames"] and names(entry["emission"])[-1] == "length"
    assert (entry["lookahead"], entry["chunk_samples"]) == (LOOKAHEAD, CHUNK)
    assert entry["calling_convention_version"] == step.calling_convention_version
    for name in ("steps", "weights", "state"):
        manifest.pop(name)
    assert manifest == {
        "format": "nemojax streaming step",
        "format_version": 1,
        "versions": {"nemojax": nemojax.__version__, "jax": jax.__version__},
        "source": {"format": "nemo"},
        "usage": list(stablehlo.USAGE),
        "dtype": "float32",
        "sample_rate_hz": 16_000,
        "history_samples": SMALLEST.history_samples,
        "frame_samples": SMALLEST.frame_samples,
        "tokenizer": "tokenizer.model",
        "vocabulary": SMALLEST.vocabulary,
        "blank": SMALLEST.vocabulary,
        "weights_file": "weights.safetensors",
        "platforms": ["cpu", "cuda", "tpu"],
    }


def test_weights_and_initial_state(native, exported):
    manifest = manifest_of(exported)
    model = checkpoint.load(native)[0]
    constants = prepare(model)
    weights = stablehlo_example.read_weights(exported, manifest)
    for array, expected in zip(weights, jax.tree.leaves((model, constants)), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    states = stablehlo_example.initial_state(manifest, 3)
    for array, expected in zip(states, jax.tree.leaves(init_state(model, constants, 3)), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)


def test_reset_and_inactive_rows(exported):
    """`reset` returns any row to the initial state; otherwise an inactive row keeps its state, and emits nothing."""
    manifest = manifest_of(exported)
    step = jax.export.deserialize(bytearray((exported / "step-1.stablehlo").read_bytes()))
    weights, fresh = stablehlo_example.read_weights(exported, manifest), stablehlo_example.initial_state(manifest, 3)
    dirty = [array + jnp.ones((), array.dtype) if array.dtype != bool else ~array for array in fresh]
    samples = np.tile(np.random.default_rng(1).normal(size=CHUNK).astype(np.float32), (3, 1))
    length, on = np.full(3, CHUNK, np.int32), np.array([True, True, False])
    call = jax.jit(step.call)
    run = lambda state, reset: call(*weights, *state, samples, length, on, reset)
    expected, found = run(fresh, np.zeros(3, bool)), run(dirty, np.array([True, False, False]))
    # what an earlier stream left in a ring stays there, and is not used: not in this step, and not in the next
    rings = {
        i
        for i, name in enumerate(entry["name"] for entry in manifest["state"])
        if name.endswith((".frames.frames", "keys.frames", "values.frames"))
    }
    assert len(rings) == 3  # keys, values and the convolution of one layer
    later = [run(result[: len(fresh)], np.zeros(3, bool)) for result in (expected, found)]
    for one, other in ((expected, found), later):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            if i not in rings:
                np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-4)
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(expected, found, strict=True))
    for before, after in zip(dirty, found[: len(fresh)], strict=True):
        np.testing.assert_array_equal(before[2], after[2])
    inactive_reset = run(dirty, np.array([True, False, True]))
    for i, (initial, after) in enumerate(zip(fresh, inactive_reset[: len(fresh)], strict=True)):
        np.testing.assert_array_equal((dirty[i] if i in rings else initial)[2], after[2])
    assert found[-1].tolist()[2] == 0 and found[-1][0] > 0


def test_bfloat16(native, tmp_path):
    stablehlo.write(native, tmp_path / "out", (LOOKAHEAD,), dtype="bfloat16")
    manifest = manifest_of(tmp_path / "out")
    types = {entry["name"]: entry["dtype"] for entry in manifest["weights"] + manifest["state"]}
    assert manifest["dtype"] == "bfloat16" and types["joint.output.kernel"] == "bfloat16"
    assert types["encoder.blocks.0.attention.keys.frames"] == "bfloat16"
    for array in stablehlo_example.read_weights(tmp_path / "out", manifest)[:3]:
        assert array.dtype == ml_dtypes.bfloat16
    model = checkpoint.load(native, jnp.bfloat16)[0]
    initial = init_state(model, prepare(model), 1)
    for array, expected in zip(stablehlo_example.initial_state(manifest, 1), jax.tree.leaves(initial), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    assert sum(entry["initial"] == 0 for entry in manifest["state"]) > 5  # an array of zeros is one number


def test_steps_of_all_trained_lookaheads_by_default(native, tmp_path, monkeypatch):
    """The command line passes every flag on; equal look-aheads and platforms count once."""
    calls = []

    def export_step(native, constants, lookahead, platforms, inside):
        calls.append((lookahead, tuple(platforms), inside))
        raise ConvertError("enough")

    monkeypatch.setattr(stablehlo, "export_step", export_step)
    for flags in (
        (),
        ("--lookaheads", "0", "0", "--platforms", "cuda", "tpu", "cuda", "--weights", "inside"),
        ("--lookaheads", "1", "--dtype", "bfloat16"),
    ):
        with pytest.raises(SystemExit):
            main(["stablehlo", str(native), str(tmp_path / "out"), *flags])
    first = SMALLEST.encoder.lookaheads[0]
    assert calls == [(first, ("cpu",), False), (0, ("cuda", "tpu"), True), (1, ("cpu",), False)]
    assert list(tmp_path.iterdir()) == []


def test_one_step_for_each_lookahead(native, exported, tmp_path, monkeypatch):
    step = jax.export.deserialize(bytearray((exported / "step-1.stablehlo").read_bytes()))
    monkeypatch.setattr(stablehlo, "export_step", lambda *arguments: step)
    stablehlo.write(native, tmp_path / "out")
    assert [entry["lookahead"] for entry in manifest_of(tmp_path / "out")["steps"]] == list(SMALLEST.encoder.lookaheads)
    assert all((tmp_path / "out" / f"step-{n}.stablehlo").exists() for n in SMALLEST.encoder.lookaheads)
    stablehlo.write(native, tmp_path / "twice", (1, 0, 1))  # which counts once
    assert [entry["lookahead"] for entry in manifest_of(tmp_path / "twice")["steps"]] == [1, 0]


def test_the_room_that_is_needed(native, tmp_path, monkeypatch):
    """A step takes 1 MB beside its weights; they are written once, or with each file of a step."""
    sizes = []

    def new_directory(path, size):
        sizes.append(size)
        raise ConvertError("enough")

    monkeypatch.setattr(stablehlo, "new_directory", new_directory)
    model = checkpoint.load(native)[0]
    weights = sum(array.nbytes for array in jax.tree.leaves((model, prepare(model))))
    for inside, mlir, copies in ((False, False, 2), (False, True, 4), (True, False, 2), (True, True, 4)):
        with pytest.raises(ConvertError, match=whole("enough")):
            stablehlo.write(native, tmp_path / "out", (0, 1), weights="inside" if inside else "beside", mlir=mlir)
        assert sizes.pop() == copies * 2**20 + weights * (copies if inside else 1)
    monkeypatch.setattr(stablehlo, "MAX_STEP_BYTES", 1000)  # weights beside a step may be larger
    with pytest.raises(ConvertError, match=whole("enough")):
        stablehlo.write(native, tmp_path / "out", weights="beside")


def test_refusals(native, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(ConvertError, match=whole("no platform is named; name at least one of cpu, cuda and tpu")):
        stablehlo.write(native, out, platforms=())
    with pytest.raises(
        ConfigError,
        match=whole(
            "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
            "model was trained with (1, 0)"
        ),
    ):
        stablehlo.write(native, out, (0, 2))
    monkeypatch.setattr(stablehlo, "MAX_STEP_BYTES", 1000)
    with pytest.raises(
        ConvertError,
        match=whole("the weights take 0.0 GB, a step holds at most 0.0 GB; use --weights beside, or --dtype bfloat16"),
    ):
        stablehlo.write(native, out, weights="inside")
    model, _, pieces, origin = checkpoint.load(native)
    checkpoint.save(tmp_path / "int8", quantization.quantize(model), pieces, origin)
    with pytest.raises(
        ConvertError, match=ending(" has weights in int8; convert the checkpoint that it was made from instead")
    ):
        stablehlo.write(tmp_path / "int8", out)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(
        ConvertError,
        match=whole(
            "jax.export needs flatbuffers (pip install flatbuffers): import of flatbuffers halted; None in sys.modules"
        ),
    ):
        stablehlo.write(native, out)
    assert not out.exists()


def test_the_example_imports_jax_and_numpy_only():
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(stablehlo_example))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"jax", "numpy"}


def test_the_examples_command_line(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", np.zeros(3))
    given = []
    monkeypatch.setattr(stablehlo_example, "transcribe", lambda *arguments: given.append(arguments) or [[3, 5]])
    for options, lookahead in (([], None), (["--lookahead", "1"], 1)):
        monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), str(tmp_path / "a.npy"), *options])
        stablehlo_example.main()
        directory, (recording,), last = given[-1]
        assert (directory, last) == (tmp_path, lookahead) and recording.dtype == np.float32 and len(recording) == 3
    assert capsys.readouterr().out == "[3, 5]\n" * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights,dtype,batches", [("beside", "float32", (1, 3)), ("inside", "float32", (3,)), ("beside", "bfloat16", (3,))]
)
def test_the_small_model_runs_without_nemojax(tmp_path, weights, dtype, batches):
    """Runs the example in a process that can't import nemojax, with batches of one and of three recordings."""
    lookahead, out = 6, tmp_path / "out"
    stablehlo.write(SMALL, out, (lookahead,), dtype=dtype, weights=weights)
    samples, rate_hz = soundfile.read(EXAMPLE, dtype="float32")
    recognizer = nemojax.load(dtype=dtype)
    assert rate_hz == recognizer.config.features.sample_rate_hz
    recordings = [samples, samples[: 2 * rate_hz], samples[rate_hz:]]
    paths = [tmp_path / f"{i}.npy" for i in range(3)]
    for path, recording in zip(paths, recordings, strict=True):
        np.save(path, recording)
    expected = [streamed(recognizer, recording, lookahead) for recording in recordings]
    text = recognizer.tokenizer.decode(expected[0])
    assert word_errors(EXAMPLE.with_suffix(".txt").read_text().strip(), text).rate < 0.1  # the model is a small one
    blocked = "import runpy, sys; sys.modules['nemojax'] = sys.modules['convert'] = None; sys.argv = sys.argv[1:]; "
    for batch in batches:
        command = [sys.executable, "-c", blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"]
        arguments = [out / "run.py", out, *paths[:batch], "--lookahead", str(lookahead)]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected[:batch]
