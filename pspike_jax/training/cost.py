"""Work of a program, counted from its equations: what is in a loop as often as the loop runs.

A compiler's own count takes the body of a loop once, and layers are a loop here.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

PRODUCTS = {"dot_general", "fft"}
# What reads and writes memory even where everything between is computed on the fly.
LOOK_UPS = {"gather", "scatter", "scatter-add", "scatter_add"}
MOVES = LOOK_UPS | {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice",
    "dynamic_update_slice", "iota", "pad", "reshape", "rev", "sharding_constraint", "slice",
    "split", "squeeze", "stop_gradient", "transpose",
}
MANUAL_AXES = ("newly_manual_axes", "manual_axes")  # by version of JAX


class Cost(NamedTuple):
    """Work, for all devices together.

    Attributes:
      products: additions and multiplications of real numbers in matrix products and Fourier
        transforms; 5 n log2(n) for a transform of n complex numbers, half of that for real ones.
      others: numbers that other operations than moves yield or read, whichever is more.
      bytes: what products, transforms, look-ups and loops over stacked arrays read and write: the
        least, where all operations in between are fused with them.
    """

    products: float = 0.0
    others: float = 0.0
    bytes: float = 0.0

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """Return the sum with what is done some times."""
        return Cost(*(mine + times * its for mine, its in zip(self, other)))


def count(jaxpr: Any, platform: str) -> Cost:
    """Count the work of a program.

    Args:
      jaxpr: its equations, as in `jax.make_jaxpr(f)(...).jaxpr`.
      platform: the one it runs on, where it has branches for several; "cpu", "cuda", "tpu".

    Returns:
      The work. Of other branches the one with the most products is taken, and the body of a loop
      whose end is found on the way counts once.
    """
    total, chosen = Cost(), {}
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "platform_index":
            chosen[id(equation.outvars[0])] = _branch(parameters["platforms"], platform)
        elif name == "cond":
            branches = [count(branch.jaxpr, platform) for branch in parameters["branches"]]
            branch = chosen.get(id(equation.invars[0]))
            total = total.plus(max(branches) if branch is None else branches[branch])
        elif inner := list(_programs(parameters)):
            times = 1
            if name == "scan":
                times = parameters["length"]
                total = total.plus(Cost(bytes=_stacked(equation)))
            elif name == "shard_map":  # its program is that of one device
                mesh = parameters["mesh"].shape
                axes = next(parameters[key] for key in MANUAL_AXES if key in parameters)
                times = math.prod(mesh[axis] for axis in axes)
            for program in inner:
                total = total.plus(count(program, platform), times)
        else:
            total = total.plus(_cost(equation))
    return total


def _programs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        program = getattr(value, "jaxpr", value)
        if hasattr(program, "eqns"):
            yield program


def _branch(platforms: Any, platform: str) -> int:
    """Return the number of the branch for a platform; the last one is for all others."""
    fitting = (i for i, names in enumerate(platforms) if names is None or platform in names)
    return next(fitting, len(platforms))


def _stacked(scan: Any) -> float:
    """Return the bytes of what a scan reads and writes a slice of at each step."""
    kept = scan.params["num_consts"] + scan.params["num_carry"]
    return _bytes(scan.invars[kept:]) + _bytes(scan.outvars[scan.params["num_carry"] :])


def _cost(equation: Any) -> Cost:
    name, inputs, outputs = equation.primitive.name, equation.invars, equation.outvars
    traffic = _bytes([*inputs, *outputs]) if name in PRODUCTS | LOOK_UPS else 0.0
    if name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        depth = math.prod(inputs[0].aval.shape[axis] for axis in contracted)
        real = 8 if outputs[0].aval.dtype.kind == "c" else 2
        return Cost(products=real * depth * _numbers(outputs), bytes=traffic)
    if name == "fft":
        size = math.prod(equation.params["fft_lengths"])
        kinds = {variable.aval.dtype.kind for variable in (*inputs, *outputs)}
        real = 5.0 if kinds == {"c"} else 2.5
        transformed = max(math.prod(v.aval.shape) for v in (*inputs, *outputs))
        return Cost(products=real * transformed * math.log2(max(2, size)), bytes=traffic)
    if name in MOVES:
        return Cost(bytes=traffic)
    return Cost(others=max(_numbers(inputs), _numbers(outputs)))


def _numbers(variables: Any) -> float:
    """Return the size of the largest of some arrays."""
    return max((math.prod(v.aval.shape) for v in variables), default=0)


def _bytes(variables: Any) -> float:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables)
