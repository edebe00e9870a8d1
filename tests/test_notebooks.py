"""The notebooks: each a script and, with its outputs, a notebook of the same cells; each runs."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from experiments.record.notebooks import executed, main

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
MOST_BYTES = 600_000

each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def test_there_are_five():
    assert len(SCRIPTS) == 5 == len(list((ROOT / "notebooks").glob("*.ipynb")))


@each
def test_script_and_notebook_are_a_pair(script):
    assert cells(jupytext.read(script)) == cells(jupytext.read(script.with_suffix(".ipynb")))


@each
def test_it_asks_and_answers(script):
    notebook = jupytext.read(script)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith("# ") and first.source.splitlines()[0].endswith("?")
    answer = last.source.split("## ")[-1]
    assert answer.startswith("The answer\n\n") and len(answer) > 200


@each
def test_outputs_are_kept_and_show_no_error_and_no_machine(script):
    path = script.with_suffix(".ipynb")
    assert path.stat().st_size < MOST_BYTES
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(cell.metadata for cell in notebook.cells) and set(notebook.metadata) == {"kernelspec"}
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    said = " ".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
    assert not re.search(r"(^|[\s'\"(])/(tmp|home|root|work|usr|Users)/", said)


@pytest.mark.slow
@each
def test_it_runs(script, monkeypatch):
    monkeypatch.setenv("FINE_TUNING_STEPS", "6")
    notebook = executed(script)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_what_fails_leaves_the_notebook_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.record.notebooks.NOTEBOOKS", tmp_path)
    (tmp_path / "bad.py").write_text("# %%\nraise ValueError('no')\n")
    (tmp_path / "dead.py").write_text("# %%\nimport os\nos._exit(1)\n")
    (tmp_path / "good.py").write_text("# %%\nprint(6 * 7)\n")
    assert main(["bad", "dead", "good"]) == 1
    said = capsys.readouterr().err
    assert "bad.py" in said and "dead.py" in said
    assert not (tmp_path / "bad.ipynb").exists() and not (tmp_path / "dead.ipynb").exists()
    assert "42" in (tmp_path / "good.ipynb").read_text()
    assert main(["none"]) == 2


def test_the_directory_of_the_output_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.record.notebooks.NOTEBOOKS", tmp_path)
    monkeypatch.setattr("experiments.record.notebooks.executed", lambda script: nbformat.v4.new_notebook())
    (tmp_path / "good.py").touch()
    assert main(["good", "--output", str(tmp_path / "new" / "made")]) == 0
    assert (tmp_path / "new" / "made" / "good.ipynb").is_file()
    assert main(["good", "--output", str(tmp_path / "good.py")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'good.py'} can't be made: File exists\n"
