"""The time-invariant state space model, one function over several engines.

x_t = Lambda_bar x_{t-1} + B_bar u_t        z_t = Lambda_bar z_{t+1} + B_bar u_t
y_t = Re(sum_n C_n x_t,n) + D u_t           + Re(sum_n C[1]_n z_{t+1},n) where C is two-sided
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.lax import broadcast_to_rank

from pspike_jax.functional.convolution import convolution_ssm
from pspike_jax.functional.diagonal_chunked import chunked_ssm
from pspike_jax.functional.engine import PLATFORMS, Engine, parse_engine
from pspike_jax.functional.engine_choice import choose_engine
from pspike_jax.functional.recurrence import linear_recurrence


def linear_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
) -> tuple[jax.Array, jax.Array]:
    """Run a diagonal SSM over a sequence; there is no hidden factor 2 for conjugate pairs.

    Poles, maps and states are float32 and complex64 whatever u's dtype. `Engine` says what each
    engine has beside values and backward passes.

    Args:
      u: (..., L, H) real.
      Lambda_bar: (H, N) complex, discretised poles; (N,) where features share them.
      B_bar: (H, N) complex, discretised input map; (N,) where features share it.
      C: (H, N) complex, or (2, H, N): C[1] reads the anti-causal state of the next step (the
        convention of the S4 programs: the reverse kernel starts one step ahead).
      D: (H,) real skip, or None.
      initial_state: (..., H, N) complex, the state before the first step; zero if None. The
        anti-causal state always starts from zero.
      resets: (..., L) bool; where true the sequence starts anew at step t: the state before it,
        the initial state included, becomes zero, and the anti-causal state of step t does not
        reach step t - 1.
      engine: an `Engine` or its value; `explain_engine` tells what `auto` takes. Resets break time
        invariance: where they are given, `fft` runs the chunked engine.

    Returns:
      y: (..., L, H) float32.
      final_state: (..., H, N) complex64, x after the last step; free under jit when unused.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit, or an unknown engine.
    """
    engine = parse_engine(engine)
    Lambda_bar, B_bar, C = (jnp.asarray(a, jnp.complex64) for a in (Lambda_bar, B_bar, C))
    shared = Lambda_bar.ndim == 1
    Lambda_bar, B_bar = check_ssm(u, Lambda_bar, B_bar, C, D, initial_state, resets)
    if initial_state is not None:
        initial_state = initial_state.astype(jnp.complex64)
    values = u.astype(jnp.float32)
    arguments = (values, Lambda_bar, B_bar, C, initial_state, resets)
    if engine is Engine.AUTO:
        y, final_state = _auto(shared, *arguments)
    else:
        y, final_state = _run(engine, *arguments)
    if D is not None:
        y = y + broadcast_to_rank(jnp.asarray(D, jnp.float32), u.ndim) * values
    return y, final_state


def _auto(shared, u, Lambda_bar, B_bar, C, initial_state, resets):
    """Run the engine of the table, on whichever platform the program is lowered for."""
    # An empty batch, as of a host without examples, is as good as one of 1, and so is one whose
    # size has no number yet. Of the engines, one alone runs a length that has none.
    batch = math.prod(u.shape[:-2])
    batch = 1 if is_symbolic_dim(batch) else max(1, batch)
    if is_symbolic_dim(u.shape[-2]):
        return _run(Engine.SEQUENTIAL, u, Lambda_bar, B_bar, C, initial_state, resets)
    size = (u.shape[-2], *Lambda_bar.shape, batch)
    flags = {
        "shared": shared,
        "two_sided": C.ndim == 3,
        "state_wanted": initial_state is not None,
    }
    engines = {name: choose_engine(row, *size, **flags) for name, row in PLATFORMS.items()}
    arguments = (u, Lambda_bar, B_bar, C, initial_state, resets)
    if len(set(engines.values())) == 1:
        return _run(engines["cpu"], *arguments)
    runs = {name: functools.partial(_run, engine) for name, engine in engines.items()}
    unknown = functools.partial(_run, Engine.CHUNKED)
    return jax.lax.platform_dependent(*arguments, default=unknown, **runs)


@functools.partial(jax.jit, static_argnames="engine")  # traced once, wherever it is used
def _run(engine, u, Lambda_bar, B_bar, C, initial_state, resets):
    if engine is not Engine.SEQUENTIAL and is_symbolic_dim(u.shape[-2]):
        raise ValueError(
            f"the {engine.value} engine needs a number of steps, got {u.shape[-2]}; "
            "the sequential engine runs any"
        )
    if engine is Engine.FFT and resets is None:
        return convolution_ssm(u, Lambda_bar, B_bar, C, initial_state)
    if engine in (Engine.FFT, Engine.CHUNKED):
        return chunked_ssm(u, Lambda_bar, B_bar, C, initial_state, resets)
    return _recurrent(u, Lambda_bar, B_bar, C, initial_state, resets, engine)


def check_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    initial_state: jax.Array | None,
    resets: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Raise where shapes do not fit; arguments and errors as in `linear_ssm`.

    Returns:
      Lambda_bar and B_bar, (H, N) each.
    """
    if u.ndim < 2 or jnp.issubdtype(u.dtype, jnp.complexfloating):
        raise ValueError(f"u must be real (..., L, H); got {u.dtype} {u.shape}")
    *batch, length, features = u.shape
    if length < 1:
        raise ValueError(f"u has no time steps: shape {u.shape}")
    state = Lambda_bar.shape[-1:]
    full = (features, *state)
    expected = {
        "Lambda_bar": (Lambda_bar, [full, state]),
        "B_bar": (B_bar, [full, state]),
        "C": (C, [full, (2, *full)]),
        "D": (D, [(features,)]),
        "initial_state": (initial_state, [(*batch, *full)]),
        "resets": (resets, [(*batch, length)]),
    }
    for name, (value, shapes) in expected.items():
        if value is not None and value.shape not in shapes:
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"{name} has shape {value.shape}; u {u.shape} expects {wanted}")
    if resets is not None and resets.dtype != bool:
        raise TypeError(f"resets must be bool, not {resets.dtype}")
    return jnp.broadcast_to(Lambda_bar, full), jnp.broadcast_to(B_bar, full)


def _recurrent(u, Lambda_bar, B_bar, C, initial_state, resets, engine):
    causal = C if C.ndim == 2 else C[0]
    states = _states(u, Lambda_bar, B_bar, initial_state, resets, engine)
    y = _read(states, causal)
    if C.ndim == 3:
        # Step t - 1 sees the anti-causal state of step t unless a sequence starts at t.
        starts = None
        if resets is not None:
            starts = jnp.pad(resets[..., 1:], [(0, 0)] * (resets.ndim - 1) + [(0, 1)])
            starts = starts[..., ::-1]
        ahead = _states(u[..., ::-1, :], Lambda_bar, B_bar, None, starts, engine)
        ahead = ahead[..., ::-1, :, :][..., 1:, :, :]
        if resets is not None:
            ahead = jnp.where(resets[..., 1:, None, None], 0, ahead)
        y = y + jnp.pad(_read(ahead, C[1]), [(0, 0)] * (u.ndim - 2) + [(0, 1), (0, 0)])
    return y, states[..., -1, :, :]


def _read(states, C):
    return jnp.sum((broadcast_to_rank(C, states.ndim) * states).real, axis=-1)


def _states(u, Lambda_bar, B_bar, initial_state, resets, engine):
    """All states, (..., L, H, N)."""
    shape = (*u.shape, Lambda_bar.shape[-1])
    drive = broadcast_to_rank(B_bar, u.ndim + 1) * u[..., None].astype(B_bar.dtype)
    drive = drive.reshape(*u.shape[:-1], Lambda_bar.size)
    decay = Lambda_bar.reshape((1,) * (u.ndim - 1) + (Lambda_bar.size,))
    if initial_state is not None:
        initial_state = initial_state.reshape(*initial_state.shape[:-2], Lambda_bar.size)
    return linear_recurrence(
        decay, drive, initial_state=initial_state, resets=resets, engine=engine
    ).reshape(shape)
