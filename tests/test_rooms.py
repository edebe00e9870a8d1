"""The directions of imports between rooms (nemojax/README.md). Imports for type checkers alone do not count."""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# each part of the code, and the parts that it must never import
FORBIDDEN = {
    "nemojax": ("convert", "experiments"),
    "convert": ("experiments",),
    "nemojax.recognition": ("nemojax.serving", "nemojax.training", "nemojax.data", "nemojax.cli"),
    "nemojax.serving": ("nemojax.training", "nemojax.data", "nemojax.cli"),
    "nemojax.kernels": ("nemojax.recognition", "nemojax.serving", "nemojax.training", "nemojax.data", "nemojax.cli"),
    "nemojax.training": ("nemojax.recognition", "nemojax.serving", "nemojax.cli"),
    "nemojax.data": ("nemojax.recognition", "nemojax.serving", "nemojax.training", "nemojax.cli"),
}
# each part of nemojax, and the only other parts of nemojax that it may import
ONLY = {
    "nemojax.errors": (),
    "nemojax.audio": ("nemojax.config", "nemojax.errors"),
    "nemojax.text": ("nemojax.config", "nemojax.errors"),
    "nemojax.settings": ("nemojax.errors",),
    "nemojax.config": ("nemojax.settings", "nemojax.errors"),
    "nemojax.model": ("nemojax.config", "nemojax.errors"),
    "nemojax.checks": ("nemojax.errors",),
    "nemojax.compilation": ("nemojax.errors",),
    "nemojax.decoding": ("nemojax.model", "nemojax.config", "nemojax.checks", "nemojax.errors"),
    "nemojax.streaming": ("nemojax.decoding", "nemojax.model", "nemojax.config", "nemojax.errors"),
}


def within(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


@functools.cache  # the same files are parsed for every test
def imported(module: str, source: str, package: bool, modules: frozenset[str]) -> set[str]:
    """Modules that `module` imports, inside functions too, but not under `if TYPE_CHECKING:`."""
    found, waiting = set(), [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found - {module}


def sources() -> dict[str, tuple[str, bool]]:
    """Source of each module by its name, and whether it is a package."""
    files = [file for top in ("nemojax", "convert", "experiments") for file in (ROOT / top).rglob("*.py")]
    name = lambda file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return {name(file): (file.read_text(), file.name == "__init__.py") for file in files}


def mistakes(sources: dict[str, tuple[str, bool]]) -> list[str]:
    """A sentence for each import that goes the wrong way, and for a circle of modules of nemojax."""
    graph = {name: imported(name, *source, modules=frozenset(sources)) for name, source in sources.items()}
    edges = [(name, target) for name in graph for target in graph[name]]
    wrong = [
        f"{name} imports {target}"
        for name, target in edges
        if any(within(name, part) and any(within(target, t) for t in banned) for part, banned in FORBIDDEN.items())
        or any(
            within(name, part) and within(target, "nemojax") and not any(within(target, t) for t in (part, *allowed))
            for part, allowed in ONLY.items()
        )
    ]
    try:
        TopologicalSorter({name: graph[name] for name in graph if within(name, "nemojax")}).prepare()
    except CycleError as error:
        wrong.append(f"a circle: {' -> '.join(error.args[1])}")
    return wrong


def test_imports_go_one_way():
    assert len(sources()) > 100 and mistakes(sources()) == []


@pytest.mark.parametrize(
    "module, line, mistake",
    [
        ("nemojax.model.layers", "from nemojax import text", "nemojax.model.layers imports nemojax.text"),
        ("nemojax.model.layers", "def f():\n    import nemojax.audio.source", "imports nemojax.audio.source"),
        ("nemojax.decoding.greedy", "from nemojax.kernels import native", "imports nemojax.kernels.native"),
        ("nemojax.metrics", "import experiments", "nemojax.metrics imports experiments"),
        ("convert.names", "from experiments.references import traces", "imports experiments.references.traces"),
        ("nemojax.config", "from nemojax.model import layers", "imports nemojax.model.layers"),
        ("nemojax.model.layers", "from nemojax.model import transducer", "a circle: "),
        ("nemojax.model.layers", "from .transducer import Transducer", "a circle: "),
    ],
)
def test_an_import_the_wrong_way_is_found(module, line, mistake):
    changed = sources()
    changed[module] = (f"{changed[module][0]}\n{line}\n", changed[module][1])
    assert any(mistake in found for found in mistakes(changed))


def test_what_a_package_imports_for_others_is_public():
    listed = 0
    for name, (source, package) in sources().items():
        body = ast.parse(source).body if package else []
        for node in body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found = {alias.name for other in body if isinstance(other, ast.ImportFrom) for alias in other.names}
                assert found == set(ast.literal_eval(node.value)), name
                listed += 1
    assert listed > 2


def test_all_annotated_shapes_are_checked(pytestconfig):
    """pyproject.toml names the modules whose annotations are checked at run time."""
    *checked, _ = pytestconfig.getoption("--jaxtyping-packages").split(",")
    annotated = [n for n, (s, _) in sources().items() if within(n, "nemojax") and "from jaxtyping import" in s]
    assert len(annotated) > 20 and all(any(within(name, part) for part in checked) for name in annotated)


def test_help_imports_no_jax():
    command = [sys.executable, "-X", "importtime", "-m", "nemojax.cli", "--help"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    modules = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "transcribe" in result.stdout and "argparse" in modules and "jax" not in modules
