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
      ValueError: wrong rank; token ids outside the vocabulary; NaN; lengths outside 1 .. L.
    """
    names = ("B", "L") if documents == 1 else ("B", "2", "L")
    names = names if vocab_size is not None else (*names, "F")
    for name, array in (("inputs", inputs), ("lengths", lengths)):
        if array is not None and not hasattr(array, "dtype"):
            raise TypeError(f"{name} are a {type(array).__name__}; expected an array")
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


def _check_values(inputs, vocab_size):
    values = concrete(inputs)
    if values is None:
        return
    if vocab_size is None:
        if np.isnan(values.astype(np.float32)).any():
            where = np.argwhere(np.isnan(values.astype(np.float32)))[0].tolist()
            raise ValueError(f"inputs contain NaN, first at {where}")
    elif values.min() < 0 or values.max() >= vocab_size:
        wrong = values[(values < 0) | (values >= vocab_size)][0]
        raise ValueError(f"a token is {wrong}; the vocabulary has ids 0 to {vocab_size - 1}")


def concrete(array: jax.Array) -> np.ndarray | None:
    """Return the values of an array, or None while a program is being traced."""
    try:
        return np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        return None
