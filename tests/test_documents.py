"""The documents: their links lead somewhere, the commands they name exist, and their Python blocks run as they stand.

Every block that begins with ```python is run, from the root of the repository, on the small model. A fragment that
cannot run by itself belongs in an indented block.
"""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import nemojax
from experiments.__main__ import COMMANDS
from nemojax.bundled import SMALL

ROOT = Path(__file__).parents[1]
PACKAGES = ("nemojax", "convert", "experiments", "notebooks", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.md"))])
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:^    .+\n)+", re.M)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


class Block(NamedTuple):
    document: Path
    line: int
    code: str


def prose(text: str) -> str:
    """Returns a document without its code blocks."""
    return INDENTED.sub("", FENCED.sub("", text))


def code(text: str) -> list[str]:
    """Returns the code blocks and code spans of a document."""
    outside = FENCED.sub("", text)
    return [*(match[2] for match in FENCED.finditer(text)), *INDENTED.findall(outside), *SPAN.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.+?)\]\(.*?\)", r"\1", heading).lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def python_blocks() -> list[Block]:
    return [
        Block(path, path.read_text().count("\n", 0, match.start()) + 1, match[2])
        for path in DOCUMENTS
        for match in FENCED.finditer(path.read_text())
        if match[1] == "python"
    ]


def test_the_documents_are_found():
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert names >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "nemojax/README.md", "experiments/README.md"}
    assert len(python_blocks()) >= 3


@each
def test_links_lead_to_files_and_headings(document):
    broken = []
    for target in LINK.findall(prose(document.read_text())):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert not broken


@each
def test_paths_exist(document):
    paths = re.compile(rf"(?:{'|'.join(PACKAGES)})/[\w./-]+")
    spans = [span for span in SPAN.findall(prose(document.read_text())) if paths.fullmatch(span)]
    assert not [span for span in spans if "NAME" not in span and not (ROOT / span).exists()]


@pytest.mark.parametrize("path", [*DOCUMENTS, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path):
    commands = "\n".join(code(path.read_text()))
    experiments = set(re.findall(r"python -m experiments (\w+)", commands)) - {"NAME"}
    assert experiments <= set(COMMANDS)
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake (\w+)", commands)) <= targets
    modules = set(re.findall(r"python -m ((?:nemojax|convert)[\w.]*)", commands))
    assert not [module for module in modules if importlib.util.find_spec(module) is None]


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: f"{block.document.relative_to(ROOT)}:{block.line}")
def test_python_blocks_run(block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    name = f"{block.document.name}, line {block.line}"
    exec(compile(block.code, name, "exec"), {"__name__": "__main__"})
    assert " ".join((SMALL / "example.txt").read_text().split()[:3]) in capsys.readouterr().out


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == nemojax.__version__
    papers = {identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]}
    assert papers == {"arXiv:2305.05084", "arXiv:2312.17279", "arXiv:1211.3711"}


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [("Accuracy against delay", "accuracy-against-delay"), ("The `step`, [here](x.md)", "the-step-here")],
)
def test_anchors_are_those_of_github(heading, anchor):
    assert anchors(f"# {heading}\n") == {anchor}
