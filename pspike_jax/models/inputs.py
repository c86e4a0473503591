"""What every model checks of its inputs before it computes."""

import jax
import jax.numpy as jnp
import numpy as np


def check_inputs(
    inputs: jax.Array, lengths: jax.Array | None, vocab_size: int | None, documents: int = 1
) -> None:
    """Raise where inputs do not fit the model; values are checked outside jit only.

    Args:
      inputs: (B, L) int tokens where vocab_size is given, else (B, L, F) float; with a document
        axis after B where documents is 2.
      lengths: (B,) int, or (B, 2) for two documents; None means all steps are valid.
      vocab_size: number of tokens, or None.
      documents: 1 or 2.

    Raises:
      TypeError: no array, or wrong dtype.
      ValueError: wrong rank; token ids outside the vocabulary; NaN or infinity; lengths outside
        1 .. L.
    """
    names = ("B", "L") if documents == 1 else ("B", "2", "L")
    names = names if vocab_size is not None else (*names, "F")
    for name, array in (("inputs", inputs), ("lengths", lengths)):
        if array is not None and not hasattr(array, "dtype"):
            raise TypeError(f"{name} are a {type(array).__name__}; expected an array")
    for name, array in (("inputs", inputs), ("lengths", lengths)):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} are a masked array, whose mask a model cannot see")
        if array is not None and not getattr(array.dtype, "isnative", True):
            raise TypeError(f"{name} are {array.dtype.str}, of the other byte order; swap it first")
    kind = jnp.integer if vocab_size is not None else jnp.floating
    if not jnp.issubdtype(inputs.dtype, kind):
        wanted = "integer tokens" if vocab_size is not None else "floating values"
        raise TypeError(f"inputs are {inputs.dtype}; the model expects {wanted}")
    if inputs.ndim != len(names) or (documents == 2 and inputs.shape[1] != 2):
        raise ValueError(f"inputs have shape {inputs.shape}; expected ({', '.join(names)})")
    if 0 in inputs.shape:
        raise ValueError(f"inputs have shape {inputs.shape}: nothing to compute")
    _check_values(inputs, vocab_size)
    if lengths is None:
        return
    batch = inputs.shape[:1] if documents == 1 else inputs.shape[:2]
    if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"lengths are {lengths.dtype} {lengths.shape}; expected integer {batch}")
    values, longest = concrete(lengths), inputs.shape[documents]
    if values is not None and not ((values >= 1) & (values <= longest)).all():
        wrong = values[(values < 1) | (values > longest)][0]
        raise ValueError(f"a length is {wrong}; expected 1 to {longest}, the length of the inputs")


def check_ids(
    example_ids: jax.Array | None, batch: int, packed_length: int | None
) -> jax.Array:
    """Return names of the examples, their rows if None.

    Args:
      example_ids: (B,) int, or None; (B, L) also where rows are packed.
      batch: B.
      packed_length: L of packed rows; None where a row is one example.

    Returns:
      (B,) or (B, L) int.
    """
    ids = jnp.arange(batch, dtype=jnp.int32) if example_ids is None else jnp.asarray(example_ids)
    packed = packed_length is not None and ids.shape == (batch, packed_length)
    if not (ids.shape == (batch,) or packed) or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"example_ids are {ids.dtype} {ids.shape}; expected integer ({batch},)")
    return ids


def check_steps_apart(
    inputs: jax.Array,
    resets: jax.Array | None,
    dt: jax.Array | None,
    supports: frozenset[str],
) -> None:
    """Raise where resets or times between steps do not fit inputs (B, L, ...), or the model."""
    for name, array, kind in (("resets", resets, jnp.bool_), ("dt", dt, jnp.floating)):
        if array is None:
            continue
        if name not in supports:
            raise ValueError(f"{name} are given, but this model does not support them")
        if array.shape != inputs.shape[:2] or not jnp.issubdtype(array.dtype, kind):
            wanted = "bool" if kind is jnp.bool_ else "floating"
            raise ValueError(
                f"{name} are {array.dtype} {array.shape}; expected {wanted} {inputs.shape[:2]}"
            )
    values = None if dt is None else concrete(dt)
    if values is not None and not (values >= 0).all():
        raise ValueError(f"dt has {values[~(values >= 0)][0]}; expected times of 0 or more")


def _check_values(inputs, vocab_size):
    values = concrete(inputs)
    if values is None:
        return
    if vocab_size is None:
        finite = np.isfinite(values.astype(np.float32))
        if not finite.all():
            where = np.argwhere(~finite)[0].tolist()
            raise ValueError(f"inputs contain {values[tuple(where)]}, first at {where}")
    elif values.min() < 0 or values.max() >= vocab_size:
        wrong = values[(values < 0) | (values >= vocab_size)][0]
        raise ValueError(f"a token is {wrong}; the vocabulary has ids 0 to {vocab_size - 1}")


def concrete(array: jax.Array) -> np.ndarray | None:
    """Return the values of an array, or None while a program is being traced."""
    try:
        return np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        return None
