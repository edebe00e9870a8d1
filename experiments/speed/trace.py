"""Divides the time of a compiled function among its `jax.named_scope`s, from a profiler's trace and the compiled text.

A trace has an event for each operation of XLA, by its name in the compiled module. The module's text has the
operation's `op_name`, the path of scopes that it was traced in. Where the compiler made an operation without one, its
scope is that of the operations fused in it, else that of its operands if they have one scope. The time of such
operations is counted.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

NO_SCOPE = "(no scope)"
BETWEEN = "(between operations)"
PRODUCTS = "products of the blocks"
BLOCK_KINDS = {
    "attention": "attention and its caches",
    "convolution": "convolution, gate and cache",
    "feedforward": "activation and residual sums",
}
STEP_KINDS = {"encoder/subsampling": "subsampling", "features": "features", "decoder": "search", "encoder": "norms"}
T = TypeVar("T")

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
# parts of a path such as jit(step)/encoder/block0/attention/jit(_where)/select_n that control flow and jax add
_FOREIGN = re.compile(
    r".*[^\w].*|while|body|cond|closed_call|eval_jaxpr|checkpoint|rematted_computation|branch_\d+_fun"
)


class Operation(NamedTuple):
    """An operation of a compiled module."""

    scope: str | None  # "" outside all scopes, None if unknown
    control: bool = False  # runs other operations: a loop, a conditional or a call
    inferred: bool = False  # the compiler gave it no name
    target: str = ""  # of a call of a kernel that is not XLA's


class Event(NamedTuple):
    name: str
    begin_ns: float
    end_ns: float


class Times(NamedTuple):
    """Seconds a step by scope, in the scopes' mean order in time, `NO_SCOPE` and `BETWEEN` last.

    They add up to `whole_s`: time in which several operations run side by side is divided among them. `inferred_s` is
    the part of the scopes' time that belongs to operations without a name.
    """

    scopes: dict[str, float]
    whole_s: float
    inferred_s: float


def scope_of(op_name: str) -> str | None:
    """Returns the named scopes in an operation's path, joined by slashes; None for a name that is no path."""
    parts = op_name.split("/")[:-1]
    return "/".join(part for part in parts if not _FOREIGN.fullmatch(part)) if parts else None


def operations(text: str) -> tuple[str, dict[str, Operation]]:
    """Returns the name of a compiled module, and its operations by name, from `compiled.as_text()`."""
    lines: dict[str, str] = {}
    named: dict[str, str | None] = {}
    computation = ""
    inside: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            name = found[1]
            lines[name] = line
            op_name = re.search(r'op_name="([^"]*)"', line)
            named[name] = scope_of(op_name[1]) if op_name else None
            inside[computation].append(name)
        elif found := _COMPUTATION.match(line):
            inside[computation := found[1]] = []
    found_operations = {}
    for name, line in lines.items():
        control = bool(re.search(r"[\]})] (while|conditional|call)\(", line))
        scope = named[name]
        if scope is None and not control:
            scope = _fused_of(line, inside, named)
            scope = _read_by(line, named) if scope is None else scope
        target = re.search(r'custom_call_target="([^"]*)"', line)
        found_operations[name] = Operation(scope, control, scope != named[name], target[1] if target else "")
    module = re.match(r"HloModule ([\w.\-]+)", text)
    return module[1] if module else "", found_operations


def _fused_of(line: str, inside: dict[str, list[str]], named: dict[str, str | None]) -> str | None:
    """Returns the commonest scope of a fusion's operations; None where none has one."""
    called = re.search(r"calls=%?([\w.\-]+)", line)
    scopes = [named[name] for name in inside.get(called[1], ())] if called else []
    common = Counter(scope for scope in scopes if scope is not None).most_common(1)
    return common[0][0] if common else None


def _read_by(line: str, named: dict[str, str | None]) -> str | None:
    """Returns the scope of an operation's operands; None where they have several, or none."""
    operands = line.split(" = ", 1)[1].split(", metadata=")[0]
    scopes = {named.get(name) for name in re.findall(r"%([\w.\-]+)", operands)} - {None}
    return scopes.pop() if len(scopes) == 1 else None


def kind_of(operation: Operation) -> str:
    """Returns what an operation of a step computes, whatever the block it belongs to: the kinds of `profile_step`."""
    scope, target = operation.scope or "", operation.target
    if "norm" in target:
        return "norms"
    if scope.startswith("encoder/block"):
        if "product" in target:
            return PRODUCTS
        return next((kind for part, kind in BLOCK_KINDS.items() if part in scope), "norms")
    return next((kind for part, kind in STEP_KINDS.items() if scope.startswith(part)), NO_SCOPE)


def read(directory: Path, module: str, step: str) -> tuple[list[Event], list[Event]]:
    """Reads the last trace in a directory; returns the events of the annotation `step` and of a module's operations."""
    from jax.profiler import ProfileData

    files = sorted(directory.glob("plugins/profile/*/*.xplane.pb"))
    steps, found = [], []
    for plane in ProfileData.from_file(str(files[-1])).planes if files else ():
        for event in (event for line in plane.lines for event in line.events):
            if event.name == step:
                steps.append(Event(step, event.start_ns, event.end_ns))
            else:
                stats = dict(event.stats)
                if "hlo_op" in stats and stats.get("hlo_module") == module:
                    found.append(Event(str(stats["hlo_op"]), event.start_ns, event.end_ns))
    return sorted(steps, key=lambda event: event.begin_ns), found


def times(steps: Sequence[Event], events: Iterable[Event], known: dict[str, Operation]) -> Times:
    """Returns the mean over steps of the time in each scope; see `Times`."""
    spent: dict[str, float] = defaultdict(float)  # ns, by scope
    moments_of: dict[str, float] = defaultdict(float)  # ns since the step's begin, weighted with the time spent
    inferred = 0.0
    events = sorted(events, key=lambda event: event.begin_ns)
    for step in steps:
        within = [event for event in events if event.begin_ns < step.end_ns and event.end_ns > step.begin_ns]
        clipped = [(max(e.begin_ns, step.begin_ns), min(e.end_ns, step.end_ns), e.name) for e in within]
        moments = sorted({step.begin_ns, step.end_ns, *(m for begin, end, _ in clipped for m in (begin, end))})
        begins = iter([*clipped, (float("inf"), 0.0, "")])
        running: list[tuple[float, float, str]] = []
        following = next(begins)
        for moment, after in pairwise(moments):
            running = [clip for clip in running if clip[1] > moment]
            while following[0] <= moment:
                running.append(following)
                following = next(begins)
            now = [known.get(name, Operation(None)) for _, end, name in running if end > moment]
            now = [
                operation for operation in now if not operation.control
            ] or now  # a loop waits for the operations that it runs
            for operation in now:
                share, scope = (after - moment) / len(now), operation.scope or NO_SCOPE
                spent[scope] += share
                moments_of[scope] += share * (moment - step.begin_ns)
                inferred += operation.inferred * share
            if not now:
                spent[BETWEEN] += after - moment
    order = sorted(spent, key=lambda scope: (scope == BETWEEN, scope == NO_SCOPE, moments_of[scope] / spent[scope]))
    scale = 1e9 * max(len(steps), 1)
    whole = sum(step.end_ns - step.begin_ns for step in steps)
    return Times({name: spent[name] / scale for name in order}, whole / scale, inferred / scale)


def faster_half(items: Sequence[T], duration: Callable[[T], float]) -> list[T]:
    """Returns the faster half of some measurements; the slower ones were disturbed by the machine's other load."""
    return sorted(items, key=duration)[: (len(items) + 1) // 2]
