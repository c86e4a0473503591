"""The text of a compiled program, read: arrays, instructions, loops and how often they run.

XLA's own count of bytes takes the body of a loop once, whatever its number of turns, and arrays
that lie in a core's own memory as if they were moved. `benchmarks.traffic` counts from what is read
here instead.
"""

import math
import re
from typing import NamedTuple

_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_BITS = {"pred": 8, "token": 0, "opaque": 0}


class Array(NamedTuple):
    """An array of a program.

    Attributes:
      dtype: as XLA calls it.
      shape: its sizes.
      size: bytes that it takes in memory, the padding of tiles included.
      main: whether it lies in the device's main memory, not in a core's own.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int
    main: bool

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Instruction(NamedTuple):
    """One line of a program; `attributes` is what follows its operands."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    inside: str
    attributes: str

    def attribute(self, name: str) -> str | None:
        """Return the value of an attribute, up to the next comma outside of braces."""
        found = re.search(rf"\b{name}=(\{{.*?\}}(?=,|$)|[^,]*)", self.attributes)
        return found and found[1]

    @property
    def calls(self) -> list[str]:
        """The computations that it runs once."""
        found = re.search(r"(?:calls|to_apply)=%([\w.\-]+)", self.attributes)
        return [found[1]] if found else []


class Computation(NamedTuple):
    """Instructions by name, in their order, and the name of the last, whose value is the result."""

    instructions: dict[str, Instruction]
    root: str

    def parameter(self, number: int) -> Instruction:
        """Return a parameter by its number."""
        return next(
            one for one in self.instructions.values()
            if one.opcode == "parameter" and one.inside == str(number)
        )

    def users(self, name: str) -> list[Instruction]:
        """Return the instructions that read a value."""
        return [one for one in self.instructions.values() if name in one.operands]


class Program(NamedTuple):
    """Computations by name, and the name of the one that is run."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Read the text of a compiled program, `compiled.as_text()`."""
    computations, entry, name, body, root = {}, "", "", None, ""
    for line in text.splitlines():
        if body is None:
            head = _HEAD.match(line)
            if head:
                name, body = head[2], {}
                entry = name if head[1] else entry
        elif line.startswith("}"):
            computations[name], body = Computation(body, root), None
        elif _LINE.match(line):
            one = _instruction(line)
            body[one.name] = one
            root = one.name if line.lstrip().startswith("ROOT") else root
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    start = _LINE.match(line)
    rest = line[start.end():]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing]
    attributes = re.sub(r", metadata=\{[^{}]*\}", "", rest[closing + 1 :])
    return Instruction(
        start[2], rest[:opening], arrays_of(kind), tuple(_NAME.findall(inside)), inside, attributes
    )


def _closing(text: str, opening: int) -> int:
    """Return where the parenthesis that opens at a place is closed."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


def arrays_of(text: str) -> tuple[Array, ...]:
    """Return the arrays of a type, those of a tuple one after the other."""
    return tuple(_array(*found) for found in _ARRAY.findall(text))


def _array(dtype: str, sizes: str, layout: str) -> Array:
    shape = tuple(int(size) for size in sizes.split(",") if size)
    order, _, rest = layout.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", rest)
    padded = list(shape)
    if tile and shape and order:
        minor = [int(axis) for axis in order.split(",")]
        for axis, step in zip(minor, map(int, tile[1].split(",")[::-1])):
            padded[axis] = -(-padded[axis] // step) * step
    space = re.search(r"S\((\d+)\)", rest)
    size = -(-math.prod(padded) * _bits(dtype) // 8)
    return Array(dtype, shape, size, space is None or space[1] == "0")


def _bits(dtype: str) -> int:
    known = _BITS.get(dtype)
    return int(re.search(r"\d+", dtype)[0]) if known is None else known


def turns(program: Program, inside: Computation, loop: Instruction) -> int | None:
    """Return how often the body of a loop runs, or None where the text does not tell.

    A program says so itself, or its condition compares a counter with a constant, from which the
    counter's start and its step in the body are found.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = program.computations[loop.attribute("condition").lstrip("%")]
    body = program.computations[loop.attribute("body").lstrip("%")]
    test = _compare(program, condition)
    if test is None:
        return None
    index, limit = test
    start = _constant(inside, _element(inside, loop.operands[0], index))
    step = _step(program, body, index)
    if None in (start, step) or step <= 0:
        return None
    return max(0, -(-(limit - start) // step))


def _compare(program, condition):
    """Return the place of the counter in the loop's state, and its limit."""
    root = condition.instructions[condition.root]
    if root.opcode == "fusion":
        called = program.computations[root.calls[0]]
        inner = called.instructions[called.root]
        places = [
            root.operands[int(called.instructions[name].inside)]
            if called.instructions[name].opcode == "parameter" else name
            for name in inner.operands
        ]
        constants = [_constant(called, name) for name in inner.operands]
        root = inner
    else:
        places, constants = list(root.operands), [None, None]
    if root.opcode != "compare" or root.attribute("direction") != "LT":
        return None
    counter = condition.instructions.get(places[0])
    limit = constants[1] if constants[1] is not None else _constant(condition, places[1])
    if counter is None or counter.opcode != "get-tuple-element" or limit is None:
        return None
    return int(counter.attribute("index")), limit


def _element(inside, name, index):
    """Return the name of an element of a tuple, or None."""
    one = inside.instructions.get(name)
    return one.operands[index] if one is not None and one.opcode == "tuple" else None


def _constant(inside, name):
    """Return the number that a value is, or None."""
    one = inside.instructions.get(name)
    while one is not None and one.opcode in ("copy", "bitcast"):
        one = inside.instructions.get(one.operands[0])
    if one is None or one.opcode != "constant" or not re.fullmatch(r"-?\d+", one.inside):
        return None
    return int(one.inside)


def _step(program, body, index):
    """Return what a turn adds to the counter, or None."""
    name = _element(body, body.root, index)
    one = body.instructions.get(name)
    if one is None:
        return None
    where = body
    if one.opcode == "fusion":
        where = program.computations[one.calls[0]]
        one = where.instructions[where.root]
    if one.opcode != "add":
        return None
    numbers = [_constant(where, name) for name in one.operands]
    return next((number for number in numbers if number is not None), None)
