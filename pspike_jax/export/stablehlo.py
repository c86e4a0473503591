"""A model as a program: StableHLO with its weights inside, by `jax.export`.

Beside the program stands PATH.json, which names its arguments in order and says what the state of a
stream starts from, so that a process without this package can run it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.models.sequence import SequenceModel

PLATFORMS = ("cpu", "cuda", "tpu")
METHODS = ("call", "step")


def to_stablehlo(
    model: SequenceModel,
    variables: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    example_shape: Sequence[int],
    method: str = "call",
    noise: float | None = None,
    length: int | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Write a model as a program.

    Its arguments are the inputs, float32 (B, L, F) or int32 (B, L), without L of a step; then, of
    a step, the leaves of the state in the order of `jax.tree.leaves(model.initial_state(B))`; then
    the key as (2,) uint32, of a model that draws and is given no noise. Results are the outputs,
    and of a step the leaves of the state. `jax.export.deserialize(bytes).call(*arguments)` runs it.

    Args:
      model: of the zoo.
      variables: its parameters and batch statistics.
      path: of the file; PATH.json is written beside it.
      example_shape: (L, F) or, of tokens, (L,); L is not read.
      method: "call" for whole sequences, "step" for one step of a stream.
      noise: a number in place of every draw; None for a key as argument.
      length: L of a call; None leaves it open, which needs an engine that runs any length.
      batch: B; None leaves it open.

    Returns:
      What PATH.json holds.

    Raises:
      ValueError: the model does not stream, or a size cannot be left open; with the reason.
    """
    if not isinstance(model, SequenceModel):
        raise TypeError(f"model is a {type(model).__name__}, expected a model of the zoo")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if model.config.documents != 1:
        raise ValueError("documents=2: pairs of documents are not exported")
    open_sizes = {name: size for name, size in (("batch", batch), ("length", length)) if not size}
    names = [name for name in open_sizes if method == "call" or name == "batch"]
    symbols = dict(zip(names, jax.export.symbolic_shape(",".join(names)) if names else ()))
    sizes = {"batch": symbols.get("batch", batch), "length": symbols.get("length", length)}
    draws = model.stochastic and noise is None
    arguments = [_inputs(model, sizes, tuple(example_shape), method)]
    card: dict[str, Any] = {
        "format": "stablehlo", "platforms": list(PLATFORMS), "method": method, "noise": noise,
        "arguments": [_words("inputs", arguments[0])],
    }
    if method == "step":
        state, described = _state(model, sizes["batch"])
        arguments += state
        card["arguments"] += described
    if draws:
        arguments.append(jax.ShapeDtypeStruct((2,), jnp.uint32))
        card["arguments"].append(_words("key", arguments[-1]))
    program = _program(model, variables, method, noise, draws)
    try:
        exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(*arguments)
    except flax.errors.FlaxError as error:
        said = f"model, variables and example_shape do not fit together: {error}"
        raise ValueError(said.split(" (https:")[0]) from error
    except Exception as error:  # shapes are compared everywhere, each comparison fails its own way
        if not names:
            raise
        raise ValueError(
            f"this model cannot leave {' and '.join(names)} open ({str(error).splitlines()[0]}): "
            + ", ".join(f"give {name}=" for name in names[::-1])
        ) from error
    with open(path, "wb") as file:
        file.write(exported.serialize())
    with open(f"{os.fspath(path)}.json", "w") as file:
        file.write(json.dumps(card, indent=1) + "\n")
    return card


def _inputs(model, sizes, example_shape, method) -> jax.ShapeDtypeStruct:
    tokens = model.config.vocab_size is not None
    if len(example_shape) != (1 if tokens else 2):
        wanted = "(L,), tokens" if tokens else "(L, F), numbers"
        raise ValueError(f"example_shape is {example_shape}, expected {wanted}")
    steps = (sizes["length"],) if method == "call" else ()
    shape = (sizes["batch"], *steps, *example_shape[1:])
    return jax.ShapeDtypeStruct(shape, jnp.int32 if tokens else jnp.float32)


def _state(model, batch) -> tuple[list[jax.ShapeDtypeStruct], list[dict[str, Any]]]:
    """Return the leaves of the state at any batch size, and what they start from."""
    two, three = (jax.tree_util.tree_leaves_with_path(model.initial_state(n)) for n in (2, 3))
    shapes, words = [], []
    for (path, small), (_, large) in zip(two, three):
        # An axis that grows with the batch holds so many rows for each example.
        rows = [b - a for a, b in zip(small.shape, large.shape)]
        shape = tuple(r * batch if r else size for r, size in zip(rows, small.shape))
        start = np.unique(np.asarray(small))
        if len(start) != 1:
            raise ValueError(f"the state {jax.tree_util.keystr(path)} starts from many numbers")
        leaf = jax.ShapeDtypeStruct(shape, small.dtype)
        shapes.append(leaf)
        words.append(
            _words(f"state{jax.tree_util.keystr(path)}", leaf) | {"start": str(start[0])}
        )
    return shapes, words


def _words(name: str, leaf: jax.ShapeDtypeStruct) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in leaf.shape]
    return {"name": name, "shape": shape, "dtype": np.dtype(leaf.dtype).name}


def _program(model, variables, method, noise, draws):
    """Return a function of arrays alone: no containers of this package stand in its arguments."""
    structure = jax.tree.structure(model.initial_state(1)) if method == "step" else None

    def program(inputs, *others):
        options: dict[str, Any] = {"noise": noise} if noise is not None else {}
        if draws:
            *others, words = others
            options["rngs"] = {"spikes": jax.random.wrap_key_data(words, impl="threefry2x32")}
        if method == "call":
            return model.apply(variables, inputs, **options)[0]
        state = jax.tree.unflatten(structure, others)
        state, (outputs, _) = model.apply(variables, state, inputs, method="step", **options)
        return outputs, *jax.tree.leaves(state)

    return program
