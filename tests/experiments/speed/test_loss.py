"""The loss's forms agree, and the command takes turns among them."""

import json

import pytest

from experiments.speed import loss
from experiments.speed.loss import Settings, measure_here, table
from experiments.speed.loss_forms import JAX_FORMS

QUICK = Settings(seconds=0.0)


def test_the_forms_in_jax_have_one_loss():
    rows = {form: measure_here(form, "small", "forward", QUICK) for form in JAX_FORMS}
    losses = [row["loss"] for row in rows.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5) and losses[0] > 0
    assert all(row["calls"] == 1 and row["seconds"] > 0 and row["device"] for row in rows.values())


@pytest.fixture
def run(tmp_path, capsys):
    def call(*arguments):
        path = tmp_path / "rows.jsonl"
        code = loss.main([*arguments, "--output", str(path)])
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return code, rows, *capsys.readouterr()

    return call


def test_forms_take_turns_and_a_skipped_one_is_not_repeated(run, monkeypatch):
    def measure(form, size, which, settings):
        if form == "torchaudio":
            return {"skipped": "no torchaudio"}
        return {"loss": 2.0, "seconds": 0.001, "calls": 1, "peak_bytes": 2**20, "device": "cpu"}

    monkeypatch.setattr(loss, "measure_in_process", measure)
    code, rows, out, _ = run("--forms", "fused", "torchaudio", "--sizes", "small", "--repeats", "2")
    cells = [(row["repeat"], row["form"], row["pass"]) for row in rows]
    assert code == 0 and cells == [
        *((0, form, which) for form in ("fused", "torchaudio") for which in ("forward", "gradient")),
        *((1, "fused", which) for which in ("forward", "gradient")),
    ]
    assert rows[0]["benchmark"] == "rnnt_loss" and rows[0]["shape"]["frames"] == 50 and rows[0]["commit"]
    assert out.splitlines()[2:] == [
        "| small | fused | forward | 1.0 | 1.0 |",
        "| small | fused | gradient | 1.0 | 1.0 |",
        "| small | torchaudio | forward | no torchaudio |  |",
        "| small | torchaudio | gradient | no torchaudio |  |",
    ]
    assert out == table(rows) + "\n"


def test_losses_that_differ_exit_with_1(run, monkeypatch):
    values = {"fused": 2.0, "logits": 2.1}
    same = {"seconds": 0.001, "calls": 1, "peak_bytes": 1, "device": "cpu"}
    monkeypatch.setattr(loss, "measure_in_process", lambda form, *rest: {"loss": values[form], **same})
    code, rows, _, err = run("--forms", "fused", "logits", "--sizes", "small", "--repeats", "1")
    assert code == 1 and len(rows) == 4 and "error: the losses of size small differ" in err


def test_one_measurement_prints_its_row(run):
    code, rows, out, _ = run("--measure", "fused", "small", "forward", "--seconds", "0", "--frames-per-block", "8")
    assert code == 0 and json.loads(out)["loss"] > 0 and not rows


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--forms", "slow"], "--forms: 'slow' is none of fused"),
        (["--sizes", "huge"], "--sizes: 'huge' is none of small"),
        (["--repeats", "0"], "--repeats must be at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(run, arguments, complaint):
    code, rows, _, err = run(*arguments)
    assert code == 2 and complaint in err and not rows
