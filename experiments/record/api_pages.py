"""Builds the pages of the documentation with pdoc: the guides, and nemojax and convert from their docstrings.

    python -m experiments api_pages [--output build/docs]

Exit codes: 0, the pages are built; 1, pdoc warned, for example about an annotation that does not resolve.
"""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

import nemojax
from experiments.record import guides

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).parent / "api_pages_template"
PACKAGES = ("nemojax", "convert")
FIRST = ("load", "Recognizer", "Transcript", "Word", "Stream", "Update", "Engine")  # on the page of nemojax
GENERATED = ("Alias for field number", "Create new instance of")  # docstrings that namedtuple makes


def public_modules(package: str) -> list[str]:
    """Returns the names of a package and of all modules in it, at any depth, that do not start with an underscore."""
    path = importlib.import_module(package).__path__
    names = [package, *(module.name for module in pkgutil.walk_packages(path, f"{package}."))]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def drop_generated(members: Sequence[Any]) -> None:
    """Empties the docstrings that nobody wrote, of members and of their members."""
    for member in members:
        if member.docstring.startswith(GENERATED):
            vars(member)["docstring"] = ""  # a cached property
        drop_generated(getattr(member, "own_members", ()))


def build(output: Path) -> None:
    """Writes a page for each guide and each module, an index, and a search index."""
    from pdoc import doc, render  # here: pdoc is not needed to list the experiments

    # pdoc reads `__dict__`, where a lazily imported name appears only after its first use
    for name in nemojax.__all__:
        vars(nemojax)[name] = getattr(nemojax, name)
    nemojax.__all__ = sorted(nemojax.__all__, key=lambda name: (*FIRST, name).index(name))
    modules = {name: doc.Module.from_name(name) for package in PACKAGES for name in public_modules(package)}
    # `__all__` has the public names alone; the page of nemojax lists its packages too
    children = [module for name, module in modules.items() if name.startswith("nemojax.") and name.count(".") == 1]
    vars(modules["nemojax"])["submodules"] = children
    for module in modules.values():
        drop_generated(module.own_members)

    render.configure(docformat="google", footer_text=f"nemojax {nemojax.__version__}", template_directory=TEMPLATE)
    for name, module in modules.items():
        page = output / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render.html_module(module, modules).replace(f"{ROOT}/", ""))  # default paths name no machine
    guides.build(output)
    render.env.globals["guides"] = guides.titles()
    (output / "index.html").write_text(render.html_index(modules))
    (output / "search.js").write_text(render.search_index(modules).replace(f"{ROOT}/", ""))


def command(output: Path = Path("build/docs")) -> int:
    """Build the API pages.

    Args:
      output: the directory of the pages; index.html is the first.
    """
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        build(output)
    for warning in found:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(f"{len(list(output.rglob('*.html')))} pages in {output}, {len(found)} warnings")
    return 1 if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return tyro.cli(command, prog="python -m experiments api_pages", args=arguments)
