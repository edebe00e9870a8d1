"""Rows of results, and the course of an experiment that makes them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.harness.experiment import Experiment
from experiments.harness.rows import Rows, distinct, select
from nemojax.errors import ConfigError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_is_complete_and_in_the_file_at_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"earlier": 1}\n')
    with Rows(path, {"experiment": "it", "seed": 3}, ["numpy", "no-such-package"]) as rows:
        for number in range(2):
            added = rows.add({"number": number, "text": "é"})
            assert lines(path)[-1] == added and len(lines(path)) == 2 + number
    assert rows.rows == lines(path)[1:] and lines(path)[0] == {"earlier": 1}
    row = rows.rows[0]
    assert (row["experiment"], row["seed"], row["number"], row["text"]) == ("it", 3, 0, "é")
    assert {"time", "commit", "cpu", "cores", "load", "python"} <= set(row)
    assert row["versions"]["numpy"] and row["versions"]["no-such-package"] is None


def test_a_rows_own_values_come_first(tmp_path):
    with Rows(tmp_path / "rows.jsonl", {"experiment": "it"}, []) as rows:
        assert rows.add({"experiment": "other", "cores": 99}).items() >= {"experiment": "other", "cores": 99}.items()


def test_what_can_not_be_written_is_an_error_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match=r"rows\.jsonl can't be written \(No such file"):
        Rows(tmp_path / "none" / "rows.jsonl", {}, []).__enter__()
    with Rows(tmp_path / "rows.jsonl", {}, []) as rows, pytest.raises(ValueError, match="not JSON compliant"):
        rows.add({"number": float("nan")})


@pytest.mark.parametrize("earlier", [None, "", "{}\n"])
def test_a_run_without_rows_leaves_the_file_as_it_was(tmp_path, earlier):
    path = tmp_path / "rows.jsonl"
    if earlier is not None:
        path.write_text(earlier)
    with pytest.raises(ZeroDivisionError), Rows(path, {}, []):
        raise ZeroDivisionError
    assert (path.read_text() if path.exists() else None) == earlier


def test_problems_are_printed_once(tmp_path, capsys):
    with Rows(tmp_path / "rows.jsonl", {}, []) as rows:
        for problem in (ValueError("a"), "b", "a"):
            rows.report(problem)
    assert rows.problems == ["a", "b"] and capsys.readouterr().err == "error: a\nerror: b\n"


def test_rows_are_selected_by_their_values():
    rows = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 2}]
    assert select(rows, a=1, b=2) == rows[:1] and select(rows, b=2) == [rows[0], rows[2]] and select(rows) == rows
    assert distinct(rows, "a") == [1] and distinct(rows, "b") == [2, 3]


@dataclass(frozen=True)
class Settings:
    output: Path
    plot: Path | None = None
    count: int = 2
    seed: int = 5

    def check(self):
        if self.count < 0:
            raise ConfigError("--count must be at least 0")


@pytest.fixture
def run(tmp_path, capsys):
    """An experiment in this process: exit code, rows, output and errors."""

    def call(measure, *arguments, **options):
        plot = lambda rows, path: path.write_text(f"{len(rows)} points")
        table = lambda rows: f"{len(rows)} lines"
        experiment = Experiment("it", Settings, measure, "About it.", table, plot, (), **options)
        path = tmp_path / "rows.jsonl"
        code = experiment.main(["--output", str(path), *map(str, arguments)])
        return code, lines(path) if path.exists() else None, *capsys.readouterr()

    return call


def test_an_experiment_adds_rows_and_shows_them(run, tmp_path):
    measure = lambda settings, rows: [rows.add({"n": n}) for n in range(settings.count)] and None
    code, rows, out, err = run(measure, "--plot", tmp_path / "plot.svg")
    assert (code, out, err) == (0, "2 lines\n", "") and (tmp_path / "plot.svg").read_text() == "2 points"
    assert [(row["experiment"], row["seed"], row["n"]) for row in rows] == [("it", 5, 0), ("it", 5, 1)]
    code, rows, out, _ = run(measure, "--count", 0)
    assert code == 0 and len(rows) == 2 and not out


def test_exit_codes_of_an_experiment(run):
    assert run(lambda settings, rows: rows.report("bad"))[::3] == (1, "error: bad\n")
    assert run(lambda settings, rows: rows.report("bad") or 0)[0] == 0
    assert run(lambda settings, rows: 7)[0] == 7

    def failing(settings, rows):
        raise KeyError("ours")

    assert run(failing, catch=(KeyError,))[::3] == (2, "error: 'ours'\n")
    with pytest.raises(KeyError):
        run(failing)


def test_settings_are_checked_before_the_work(run, tmp_path):
    def measure(settings, rows):
        raise AssertionError("it must not run")

    for arguments, message in (
        (["--count", -1], "--count must be at least 0"),
        (["--plot", tmp_path / "a.gif"], "svg, png, pdf"),
        (["--plot", tmp_path / "none" / "a.svg"], "there is no directory"),
    ):
        code, rows, out, err = run(measure, *arguments)
        assert code == 2 and message in err and rows is None and not out
