"""Counts the bytes that a compiled program moves, from the text of its optimized HLO.

XLA's own `cost_analysis` counts a write into a few slots of a ring as if it read and wrote the whole ring, where the
write is part of a fusion. Here such a write counts as what is written. Everything else counts as XLA does: each
instruction outside of fusions reads its operands once and writes its result once, and what is inside a fusion moves
nothing. A part of an operand that is sliced or gathered counts as that part.
"""

import math
import re
from dataclasses import dataclass

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
PARTS = {"slice", "dynamic-slice", "gather"}
WRITES = {"dynamic-update-slice": 1, "scatter": 2}  # and which operand is what is written
HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
LINE = re.compile(r"\s*(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([\w.\-]+)|branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Instruction:
    """A line of HLO: `size` is that of its result in bytes, `rest` all after its operands."""

    op: str
    size: int
    operands: list[str]
    number: str  # of a parameter
    rest: str
    is_root: bool

    @property
    def called(self) -> list[str]:
        """The computations that it calls."""
        return [name for found in CALLED.findall(self.rest) for name in re.findall(r"[\w.\-]+", "".join(found))]


Computation = dict[str, Instruction]


def array_bytes(text: str) -> int:
    """Returns the bytes of all arrays that a type names, such as `(f32[2,3], s32[])`."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", text)
    return sum(BYTES.get(name, 4) * math.prod(int(n) for n in dims.split(",") if n) for name, dims in shapes)


def parse(text: str) -> dict[str, Computation]:
    """Reads all computations by their names; the entry is also named ENTRY."""
    found: dict[str, Computation] = {}
    current: Computation = {}
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = found[head[2]] = {}
            if head[1]:
                found["ENTRY"] = current
        elif match := LINE.match(line):
            root, name, kind, op, rest = match.groups()
            depth, end = 1, 0
            while depth:
                depth += {"(": 1, ")": -1}.get(rest[end], 0)
                end += 1
            given = rest[: end - 1]
            operands = re.findall(r"%([\w.\-]+)", given)
            current[name] = Instruction(op, array_bytes(kind), operands, given, rest[end:], bool(root))
    return found


def moved(computations: dict[str, Computation], name: str = "ENTRY") -> int:
    """Returns the bytes that a computation and all that it calls read and write."""
    total = 0
    for instruction in computations[name].values():
        if instruction.op in ("while", "call", "conditional"):
            trips = TRIPS.search(instruction.rest)
            inside = sum(moved(computations, called) for called in instruction.called)
            total += inside * (int(trips[1]) if trips else 1)
        elif instruction.op == "fusion":
            total += fused(computations[instruction.called[0]])
        elif instruction.op not in FREE:
            total += single(computations[name], instruction)
    return total


def single(computation: Computation, instruction: Instruction) -> int:
    """Returns the bytes of an instruction that stands alone."""
    sizes = [computation[operand].size for operand in instruction.operands]
    if instruction.op in WRITES:
        return sum(sizes[1:]) + sizes[WRITES[instruction.op]]
    if instruction.op in PARTS:
        return instruction.size + sum(sizes[1:]) + instruction.size
    return sum(sizes) + instruction.size


def fused(computation: Computation) -> int:
    """Returns the bytes of a fusion: its parameters, or the parts of them that it reads, and its result."""
    root = next(instruction for instruction in computation.values() if instruction.is_root)
    while root.op == "bitcast":
        root = computation[root.operands[0]]
    written, target = root.size, ""
    if root.op in WRITES:
        target = root.operands[0]
        while computation[target].op == "bitcast":
            target = computation[target].operands[0]
        written = computation[root.operands[WRITES[root.op]]].size
    total = written
    for name, instruction in computation.items():
        if instruction.op == "parameter" and name != target:
            users = [user for user in computation.values() if name in user.operands]
            in_parts = all(user.op in PARTS and user.operands[0] == name for user in users)
            total += min(instruction.size, sum(user.size for user in users)) if in_parts else instruction.size
    return total
