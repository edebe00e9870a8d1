"""Runs the scripts in `notebooks`, and keeps their outputs in the notebooks beside them.

    python -m experiments notebooks [NAME...] [--output DIRECTORY]

Times and versions of a run are not kept, so a notebook changes only where its cells or their outputs do. Exit codes: 0,
all have run; 1, a cell failed, and its notebook is unchanged; 2, there is no such script.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbclient
import nbformat
import tyro
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from experiments.harness.command import PROGRAM, ending
from nemojax import companions

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_S = 900  # maximum for one cell
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)


def executed(script: Path) -> nbformat.NotebookNode:
    """Runs a script and returns its cells with their outputs.

    Raises:
      CellExecutionError: a cell failed.
      DeadKernelError: the process that runs the cells has ended.
      CellTimeoutError: a cell took more than `CELL_S` seconds.
    """
    notebook: nbformat.NotebookNode = jupytext.read(script)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    resources = {"metadata": {"path": str(script.parent)}}
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_S, kernel_name="python3", coalesce_streams=True, resources=resources
    )
    client.execute(env={**os.environ, "PYTHONPATH": path})
    notebook.metadata = nbformat.NotebookNode({"kernelspec": nbformat.NotebookNode(KERNEL)})
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = nbformat.NotebookNode(), f"cell-{number}"
    return notebook


def command(names: tyro.conf.Positional[tuple[str, ...]] = (), output: Path | None = None) -> int:
    """Run the notebooks' scripts and keep their outputs.

    Args:
      names: of notebooks; by default all.
      output: new directory of the executed notebooks; by default that of the scripts, or here without a clone.
    """
    output = output or (Path() if companions.installed() else NOTEBOOKS)
    scripts = [NOTEBOOKS / f"{name}.py" for name in names] or sorted(NOTEBOOKS.glob("*.py"))
    for script in scripts:
        if not script.is_file():
            print(f"error: there is no notebook {script.stem}", file=sys.stderr)
            return 2
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: {output} can't be made: {error.strerror}", file=sys.stderr)
        return 2
    code = 0
    for script in scripts:
        try:
            notebook = executed(script)
        except FAILURES as error:
            print(f"error: {script.name}: {error}", file=sys.stderr)
            code = 1
            continue
        target = output / script.with_suffix(".ipynb").name
        nbformat.write(notebook, target)
        print(f"{target}: {len(notebook.cells)} cells")
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    return ending(lambda: tyro.cli(command, prog=f"{PROGRAM} notebooks", args=arguments))
