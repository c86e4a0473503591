"""What the instructions of a compiled program compute; see `benchmarks.traffic`."""

import collections
import math
import re

from benchmarks import hlo

ARITHMETIC = frozenset(
    "add subtract multiply divide maximum minimum negate abs exponential exponential-minus-one log "
    "log-plus-one sine cosine tan tanh logistic sqrt rsqrt cbrt power remainder atan2 erf compare "
    "select clamp and or xor not shift-left shift-right-logical shift-right-arithmetic floor ceil "
    "round-nearest-even round-nearest-afz sign popcnt count-leading-zeros complex".split()
)


def flops(
    program: hlo.Program, inside: hlo.Computation, one: hlo.Instruction
) -> dict[str, float]:
    """Return the operations of an instruction, by kind."""
    if one.opcode in ("fusion", "map"):
        total = collections.Counter()
        called = program.computations[one.calls[0]]
        for inner in called.instructions.values():
            total.update(flops(program, called, inner))
        return total
    operands = [inside.instructions[name].arrays for name in one.operands]
    size = sum(array.elements for array in one.arrays)
    if one.opcode in ("dot", "convolution"):
        terms = _terms if one.opcode == "dot" else _taps
        return {_precision(one): 2 * terms(one, *(arrays[0] for arrays in operands[:2]))}
    if one.opcode == "custom-call" and "gemm" in one.attributes.lower():
        return {_precision(one): 2 * _terms(one, operands[0][0], operands[1][0])}
    if one.opcode == "fft":
        length = math.prod(int(n) for n in re.findall(r"\d+", one.attribute("fft_length")))
        largest = max(size, operands[0][0].elements)
        return {"fft": 5 * largest * math.log2(max(2, length))}
    if one.opcode in ("reduce", "reduce-window"):
        return {"other": sum(array.elements for arrays in operands for array in arrays)}
    if one.opcode in ARITHMETIC:
        return {"other": size}
    return {}


def _precision(one):
    text = one.attribute("operand_precision") or one.attributes
    return "highest" if re.search(r"highest|HIGHEST", text) else "default"


def _terms(one, left, right):
    """Return the products of a dot: elements of the result times those summed over."""
    text = one.attributes.replace('"', "").replace("[", "{").replace("]", "}")
    found = {
        key: [int(n) for n in re.findall(r"\d+", values)]
        for key, values in re.findall(
            r"(lhs_contracting_dim\w*|lhs_batch_dim\w*)[=:]\{([\d,]*)\}", text
        )
    }
    summed = next((v for key, v in found.items() if "contracting" in key), [])
    batch = next((v for key, v in found.items() if "batch" in key), [])
    product = lambda axes: math.prod(left.shape[axis] for axis in axes)
    return left.elements * right.elements / (product(summed) * product(batch))


def _taps(one, left, right):
    """Return the products of a convolution that do not meet padding."""
    labels = re.fullmatch(r"(\w+)_(\w+)->(\w+)", one.attribute("dim_labels"))
    given, kernel, result = labels.groups()
    window = collections.defaultdict(list)
    for key, values in re.findall(r"(\w+)=([\d_x\-]+)", one.attribute("window") or ""):
        window[key] = [values.split("_") if key == "pad" else int(values)
                       for values in values.split("x")]
    shape = one.arrays[0].shape
    total = 1
    for number in range(len(kernel) - 2):
        place = str(number)
        default = lambda key, value: window[key][number] if window[key] else value
        size = default("size", right.shape[kernel.index(place)])
        low = int(default("pad", ["0", "0"])[0])
        total *= _meetings(
            shape[result.index(place)], size, left.shape[given.index(place)],
            default("stride", 1), low, default("lhs_dilate", 1), default("rhs_dilate", 1),
        )
    features = shape[result.index("b")] * shape[result.index("f")]
    return total * features * right.shape[kernel.index("i")]


def _meetings(outputs, size, inputs, stride, low, spread, dilate):
    """Count pairs of an output and a tap that fall on an element of the input."""
    count, last = 0, (inputs - 1) * spread
    for output in range(outputs):
        start = output * stride - low
        if spread == 1 and dilate == 1:
            count += max(0, min(size - 1, last - start) - max(0, -start) + 1)
            continue
        count += sum(
            0 <= start + tap * dilate <= last and (start + tap * dilate) % spread == 0
            for tap in range(size)
        )
    return count
