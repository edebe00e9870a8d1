"""The table of a step's scopes, on a tiny model: every scope has its line, and they add up."""

import gzip
import json
import re

import numpy as np
import pytest
import soundfile

from experiments.speed import profile
from experiments.speed.profiled_step import STEP
from experiments.speed.trace import BETWEEN, NO_SCOPE

BLOCKS = {f"encoder/blocks/{part}" for part in ("feedforward1", "attention", "convolution", "feedforward2")}
SCOPES = BLOCKS | {"features", "encoder/subsampling", "decoder", "decoder/joint"}


@pytest.fixture
def run(tmp_path, speech, checkpoint_directory, capsys):
    soundfile.write(tmp_path / "speech.wav", np.asarray(speech)[:40_000], 16_000)

    def call(*arguments, model=checkpoint_directory):
        fixed = ["--audio", str(tmp_path / "speech.wav"), "--output", str(tmp_path / "out"), "--steps", "4"]
        code = profile.main([str(model), *fixed, *map(str, arguments)])
        out, err = capsys.readouterr()
        path = tmp_path / "out" / "profile.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return code, rows, out, err

    return call


def test_every_part_of_a_step_has_its_row(run, tmp_path):
    code, (row,), out, _ = run("--lookahead", 6)
    scopes = row["scopes_ms"]
    assert code == 0 and set(scopes) >= SCOPES and all(scopes[scope] > 0 for scope in SCOPES)
    assert set(scopes) <= SCOPES | {"encoder", "encoder/blocks", "decoder/prediction", NO_SCOPE, BETWEEN}
    assert sum(scopes.values()) == pytest.approx(row["traced_ms"], abs=0.01)  # the parts are the whole
    assert row["inferred_ms"] < row["traced_ms"]
    order = list(scopes)
    assert order.index("features") < order.index("encoder/subsampling") < order.index("encoder/blocks/attention")
    assert order[-1] == BETWEEN and (row["lookahead"], row["streams"], row["steps"]) == (6, 1, 4)
    for scope, ms in scopes.items():
        assert f"| {scope} | {ms:.3f} |" in out
    # what other programs read
    (trace,) = (tmp_path / "out").glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == STEP for event in events) == 4
    assert re.search(r"encoder/block1/(jit\(\w+\)/)?attention", (tmp_path / "out" / "step.hlo").read_text())


def test_more_streams_and_chunks_in_a_step_and_each_block(run, tmp_path):
    _, (one,), *_ = run("--lookahead", 0)
    assert "f32[1,1280]" in (tmp_path / "out" / "step.hlo").read_text()
    code, (_, many), *_ = run("--lookahead", 0, "--streams", 3, "--chunks", 2, "--each-block")
    assert "f32[3,2560]" in (tmp_path / "out" / "step.hlo").read_text()
    assert code == 0 and (many["streams"], many["chunks"], many["chunk_ms"]) == (3, 2, 80)
    blocks = {scope.split("/")[1] for scope in many["scopes_ms"] if scope.startswith("encoder/block")}
    assert {"block0", "block1"} <= blocks and "blocks" not in blocks
    first, last = (json.dumps(list(row["scopes_ms"])) for row in (one, many))
    assert "encoder/blocks/attention" in first and "encoder/block1/attention" in last


def test_scopes_come_from_this_code_though_the_step_is_cached(run, monkeypatch):
    """jax's cache on disk leaves scopes out of its keys by default."""
    import jax

    asked = []
    real = jax.stages.Lowered.compile
    name = "jax_compilation_cache_include_metadata_in_key"
    noted = lambda self, *a, **k: (asked.append(getattr(jax.config, name)), real(self, *a, **k))[1]
    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    assert run("--lookahead", 0)[0] == 0 and asked == [True] and not getattr(jax.config, name)


def test_what_is_wrong_exits_with_2(run, tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--steps", 0], "--steps must be at least 1, not 0"),
        (["--streams", 0], "--streams must be at least 1"),
        (["--by-kind", "--each-block"], "--by-kind and --each-block ask for different tables"),
        (["--lookahead", 2], "lookahead 2 does not fit"),
        (["--audio", tmp_path / "none.wav"], "none.wav"),
        (["--audio", tmp_path / "empty.wav"], "empty.wav holds no samples"),
        (["--output", tmp_path / "file" / "out"], "can't be written"),
    ):
        code, _, out, err = run(*arguments)
        assert code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1 and not out
    assert run(model=tmp_path / "nowhere")[0] == 2
