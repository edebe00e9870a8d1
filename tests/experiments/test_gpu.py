import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.gpu import __main__ as gpu
from experiments.gpu import card, kernels, points, right, rows, serving, weights
from experiments.gpu.kernels import Kernel
from experiments.gpu.points import DRY, Point, Sizes, parse_point
from experiments.gpu.programs import Programs
from experiments.roofline import count
from experiments.trace import Operation
from nemojax.bundled import SMALL
from nemojax.config import PRESETS, ConfigError


@pytest.mark.parametrize(
    "text,point",
    [
        ("1024@0", Point(1024, 0)),
        ("1@13/fused/launches", Point(1, 13, "fused", buffers=False)),
        ("16@0/narrow/active=1", Point(16, 0, "narrow", active=1)),
        ("64@6/encoder", Point(64, 6, part="encoder")),
    ],
)
def test_a_point_is_read_and_written(text, point):
    assert parse_point(text) == point == parse_point(str(point))


@pytest.mark.parametrize("text", ["", "0@1", "8", "8@1/other", "8@0/active=9", "8@0/active=0"])
def test_what_is_no_point_is_an_error(text):
    with pytest.raises(ConfigError, match=r"point|none of"):
        parse_point(text)


def test_the_floor_is_bytes_and_operations_over_the_ceilings():
    found = card.floor(1000, 10, 20, 50.0, card.Ceilings(operations_per_s=1e5, bytes_per_s=1e6))
    assert found.bytes_ms == pytest.approx(1.2) and found.operations_ms == pytest.approx(0.5)
    assert found.sum_ms == pytest.approx(1.7)


@pytest.mark.parametrize("lookahead", [0, 13])
def test_operations_are_those_that_xla_counts(lookahead):
    config = PRESETS["0.6b"]
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=2))
    counted = count(config, lookahead)["operations"]
    assert card.operations(config, lookahead) == pytest.approx(counted, rel=0.12)


def test_the_card_is_what_the_driver_says():
    values = "NVIDIA H100 80GB HBM3, 580.159.04, 81559 MiB, 1980 MHz, 700.00 W\n"
    said = card_said(values, 0)
    assert said["name"] == "NVIDIA H100 80GB HBM3" and said["driver_version"] == "580.159.04"
    assert card_said("", 0) is None and card_said("failed", 1) is None


def card_said(text, code):
    return rows.card(lambda *_, **__: SimpleNamespace(returncode=code, stdout=text))


def test_rows_are_written_at_once_and_say_more_than_the_facts():
    file = io.StringIO()
    written = rows.Rows(file, {"dtype": "bfloat16", "seed": 3})
    written.add("b", "step", p50_ms=1.5, dtype="float32")
    written.failed("b", "step", RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), point="1@0")
    first, second = map(json.loads, file.getvalue().splitlines())
    assert first["experiment"] == "gpu" and first["dtype"] == "float32" and first["seed"] == 3
    assert second["out_of_memory"] and second["error"] == "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"


def test_a_bias_is_sought_that_gives_the_rate():
    bias, rate = weights.calibrated(lambda bias: 10 * np.exp(-bias), -12.0, 12.0, target=0.3)
    assert rate == pytest.approx(0.3, rel=0.1) and bias == pytest.approx(np.log(10 / 0.3), abs=0.1)
    bias, rate = weights.calibrated(lambda bias: 0.0, 0.0, 8.0)  # nothing helps; the closest is given
    assert rate == 0.0 and 0 <= bias <= 8


def test_blank_is_as_likely_behind_one_label_as_behind_another():
    rng = np.random.default_rng(0)
    arrays = weights.draw(PRESETS["tiny"], 0)
    encoded = rng.standard_normal((600, 32)).astype(np.float32) * np.geomspace(1, 100, 32, dtype=np.float32) + 5
    predicted = rng.standard_normal((600, 24)).astype(np.float32)
    new = weights.balance_joint(arrays, encoded, predicted, PRESETS["tiny"].blank)
    assert {name: value.shape for name, value in new.items()} == {name: arrays[name].shape for name in new}
    frames, labels = (
        x @ new[f"joint.{n}.kernel"] + new[f"joint.{n}.bias"]
        for n, x in (("encoder", encoded), ("prediction", predicted))
    )
    hidden = np.maximum(frames[:200, None] + labels[None, :200], 0)
    logits = (hidden @ new["joint.output.kernel"] + new["joint.output.bias"])[..., PRESETS["tiny"].blank]
    assert logits.mean(0).std() < logits.std() / 3 and logits.mean(1).std() < logits.std() / 3


def test_made_up_pieces_fill_a_tokenizer():
    model = (SMALL / "tokenizer.model").read_bytes()
    for pieces in (64, 300):
        found = weights.tokenizer(model, pieces)
        assert found.size == pieces and isinstance(found.decode([pieces - 1, 1]), str)


def test_time_of_kernels():
    found = [Kernel("a", "", 0, 10), Kernel("b_1", "", 5, 20), Kernel("a", "fusion.2", 30, 40)]
    assert kernels.busy_ns(found) == 30 and kernels.busy_ns([]) == 0
    (first, second) = kernels.largest(found, 2, 2)
    assert first["name"] == "a" and first["runs"] == 1.0
    assert second["name"] == "b_1" and second["runs"] == 0.5
    known = {"b.1": Operation("encoder/block3/attention"), "fusion.2": Operation("decoder")}
    assert set(kernels.by_scope(found, 1, known)) == {"(no scope)", "encoder/blocks/attention", "decoder"}


def test_errors_and_labels_are_compared():
    reference = right.Output(np.ones((2, 3, 4)), [[1], [2, 3]], [[0], [1, 2]])
    found = right.Output(np.ones((2, 3, 4)) * 1.01, [[1], [2, 4]], [[0], [1, 2]])
    row = right.compared(found, reference)
    assert row["relative_error"] == pytest.approx(0.01) and row["streams_identical"] == 1 and row["frames"] == 6
    assert right.relative_error(np.full(2, np.nan), np.ones(2)) == float("inf")


def test_programs_are_found_again_by_their_keys():
    programs = Programs(2)
    programs.submit("good", lambda: 1)
    programs.submit("good", lambda: 2)
    programs.submit("bad", lambda: 1 / 0)
    assert programs.wait(10) == 0 and programs.pending == 0 and programs.result("good") == 1
    with pytest.raises(ZeroDivisionError):
        programs.result("bad")
    programs.close()


def test_segments_of_offline_recordings():
    lengths = serving.offline_segments(PRESETS["tiny"], 30.0)
    assert lengths == [179200, 358400]


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--preset", "huge"], "--preset: 'huge' is none of"),
        (["--stages", "a,x"], "--stages: write some of"),
        (["--limit-s", "0"], "greater than 0"),
    ],
)
def test_what_is_wrong_is_said(arguments, said, capsys, tmp_path):
    assert gpu.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert said in capsys.readouterr().err


def dry_rows(tmp_path, **settings):
    output = tmp_path / "rows.jsonl"
    code = gpu.run(gpu.Settings(dry=True, output=output, workers=2, limit_s=3000.0, **settings))
    return code, [json.loads(line) for line in output.read_text().splitlines()]


def test_a_dry_run_of_one_point(tmp_path, capsys):
    sizes = dataclasses.replace(DRY, calibration=("2@0",), points=("2@0",), product_width=64)
    code, found = dry_rows(tmp_path, stages="b", sizes=sizes)
    assert code == 0 and [row["kind"] for row in found if row["stage"] == "b"] == ["ceilings", "step", "done"]
    step = next(row for row in found if row["kind"] == "step")
    assert step["p50_ms"] > 0 and step["floor_share"] > 0 and step["temp_bytes"] > 0 and step["dry"]
    assert "| 2@0/plain |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_of_all_stages(tmp_path):
    _, found = dry_rows(tmp_path, stages="a,b,c,d,e,f,h", compile_s=2000.0)
    kinds = {row["kind"] for row in found if "error" not in row}
    assert {"right", "ceilings", "step", "one stream", "paced", "offline", "training", "table"} <= kinds
    assert not [row for row in found if "error" in row]


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match="durations"):
        Sizes(offline_s=0)
    assert points.both("1@0") == ("1@0/plain", "1@0/fused")
