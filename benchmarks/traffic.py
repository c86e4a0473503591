"""What a compiled program moves and computes, counted from its text; see `benchmarks.hlo`.

An operation reads its operands from main memory and writes its results there, a fusion those of the
whole fusion; of what is sliced or updated in place, the slice counts. Loops count as often as they
turn. Arrays in a core's own memory cost nothing. What is sent between devices is counted as a ring
sends it.
"""

import collections
import dataclasses
import re

from benchmarks import hlo
from benchmarks.flops import flops

FREE = frozenset({
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id",
    "replica-id", "copy-done", "async-done", "async-update", "opt-barrier", "add-dependency",
    "iota", "domain",
})
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
               "ragged-all-to-all", "collective-broadcast")
SLICES = ("dynamic-slice", "slice", "gather")
THROUGH = ("bitcast", "reshape")
NO_WORK = ("AllocateBuffer", "Sharding", "ConcatBitcast", "annotate_device_placement")


@dataclasses.dataclass
class Traffic:
    """Sums over a program.

    Attributes:
      bytes: read from and written to main memory.
      flops: floating-point and integer operations by kind: "highest" and "default" products by
        their precision, "fft", "other".
      collective_bytes: that one device sends to others.
      operations: that were started, turns of loops multiplied.
      unknown_loops: whose turns the text does not tell; counted once.
    """

    bytes: float = 0.0
    flops: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    collective_bytes: float = 0.0
    operations: int = 0
    unknown_loops: int = 0


def count(text: str) -> Traffic:
    """Count what the text of a compiled program says."""
    program, total = hlo.parse(text), Traffic()
    _walk(program, program.computations[program.entry], 1, total)
    return total


def _walk(program, inside, times, total):
    for one in inside.instructions.values():
        if one.opcode in FREE or one.opcode.endswith("-done"):
            continue
        if one.opcode == "while":
            turns = hlo.turns(program, inside, one)
            total.unknown_loops += turns is None
            body = program.computations[one.attribute("body").lstrip("%")]
            _walk(program, body, times * (1 if turns is None else turns), total)
        elif one.opcode in ("call", "async-start"):
            _walk(program, program.computations[one.calls[0]], times, total)
        elif one.opcode == "conditional":
            _longest(program, one, times, total)
        elif one.opcode == "custom-call" and any(f'"{name}"' in one.attributes for name in NO_WORK):
            continue
        else:
            total.operations += times
            total.bytes += times * moved(program, inside, one)
            for kind, number in flops(program, inside, one).items():
                total.flops[kind] += times * number
            total.collective_bytes += times * _sent(one, inside)


def _longest(program, one, times, total):
    """Add the branch that moves most."""
    names = re.findall(r"%([\w.\-]+)", one.attribute("branch_computations") or "")
    names += [
        found.lstrip("%")
        for found in map(one.attribute, ("true_computation", "false_computation")) if found
    ]
    branches = []
    for name in names:
        branch = Traffic()
        _walk(program, program.computations[name], times, branch)
        branches.append(branch)
    most = max(branches, key=lambda branch: branch.bytes)
    total.bytes += most.bytes
    total.flops += most.flops
    total.collective_bytes += most.collective_bytes
    total.operations += most.operations
    total.unknown_loops += most.unknown_loops


def moved(program: hlo.Program, inside: hlo.Computation, one: hlo.Instruction) -> int:
    """Return the bytes that an operation moves from and to main memory."""
    operands = [inside.instructions[name] for name in one.operands]
    written = _main(one.arrays)
    if one.opcode == "fusion":
        called = program.computations[one.calls[0]]
        read = 0
        for number, operand in enumerate(operands):
            own = called.parameter(number)
            read += min(_main(operand.arrays), _touched(program, called, own))
        return read + _written(program, called, called.root, one.arrays)
    if one.opcode.endswith("-start"):  # the result's own array is the second of a tuple's
        size = one.arrays[min(1, len(one.arrays) - 1)].size
        if one.opcode == "copy-start":
            return sum(array.size for array in one.arrays[:2] if array.main)
        return size * sum(array.main for array in one.arrays[:2])
    if one.opcode in SLICES:
        return written + min(_main(operands[0].arrays), sum(a.size for a in one.arrays))
    if one.opcode == "dynamic-update-slice":
        return _main(operands[1].arrays) + (_all(operands[1].arrays) if written else 0)
    if one.opcode == "scatter":
        return _main(operands[-1].arrays) + (2 * _all(operands[-1].arrays) if written else 0)
    return written + sum(_main(operand.arrays) for operand in operands)


def _main(arrays):
    return sum(array.size for array in arrays if array.main)


def _all(arrays):
    return sum(array.size for array in arrays)


def _touched(program, inside, value):
    """Return the bytes of a value that its users inside a fusion read."""
    whole, size = _all(value.arrays), 0
    for user in inside.users(value.name):
        first = user.operands[0] == value.name
        if user.opcode in SLICES and first:
            size += _all(user.arrays)
        elif user.opcode == "dynamic-update-slice" and first:
            continue
        elif user.opcode in THROUGH:
            size += _touched(program, inside, user)
        elif user.opcode == "fusion":
            called = program.computations[user.calls[0]]
            for number, name in enumerate(user.operands):
                if name == value.name:
                    size += _touched(program, called, called.parameter(number))
        else:
            return whole
    return min(whole, size)


def _written(program, inside, name, arrays):
    """Return the bytes that the result of a fusion writes."""
    one = inside.instructions[name]
    if one.opcode == "tuple" and len(one.operands) == len(arrays):
        pairs = zip(one.operands, arrays)
        return sum(_written(program, inside, name, (array,)) for name, array in pairs)
    if one.opcode in THROUGH:
        return _written(program, inside, one.operands[0], arrays)
    if one.opcode == "fusion":
        called = program.computations[one.calls[0]]
        return _written(program, called, called.root, arrays)
    if one.opcode == "dynamic-update-slice" and _main(arrays):
        return min(_main(arrays), _all(inside.instructions[one.operands[1]].arrays))
    return _main(arrays)


def _sent(one, inside):
    """Return the bytes that a device sends in a collective operation, in a ring."""
    kind = one.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return 0
    given = sum(_all(inside.instructions[name].arrays) for name in one.operands)
    groups = one.attribute("replica_groups") or ""
    listed = re.match(r"\{\{([\d,]+)\}", groups)
    iota = re.match(r"\[(\d+),(\d+)\]", one.attributes.partition("replica_groups=")[2])
    size = len(listed[1].split(",")) if listed else int(iota[2]) if iota else 0
    if kind == "collective-permute" or not size:
        return given
    share = (size - 1) / size
    # An all-gather is given a part and sends it on, size - 1 times in all.
    return given * {"all-reduce": 2 * share, "all-gather": size - 1}.get(kind, share)
