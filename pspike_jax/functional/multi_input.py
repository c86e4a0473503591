"""One state space that all features share: many inputs, many outputs, states on their own.

    b_t = B u_t              from H features to P drives, complex
    x_t = A_t x_{t-1} + g_t b_t
    y_t = Re(C s_t) + D u_t  s_t the part of the state that is read

A_t acts on each of the P drives alone: as a complex factor (`Diagonal`: S5, whose s is x), or as a
real 2 x 2 matrix on a complex velocity and a complex position (`Blocks`: oscillators, whose s is
the position). A second readout C[1] reads the anti-causal state, which *includes* the current step:

    z_t = A_{t+1} z_{t+1} + g_{t+1} b_t,

the same system on the sequence turned around: A_{t+1} and g_{t+1} belong to the time between t and
t + 1. Behind the last step there is none, and the last step's own serve for it.

Where A and g are the same at each step, the chunked engine runs drives as features of one input
each; real and imaginary parts of a drive, which do not meet in a real system, as two examples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from pspike_jax.functional.chunked import Evaluate, evaluate_whole
from pspike_jax.functional.diagonal_chunked import chunked_ssm
from pspike_jax.functional.dplr_chunked import DENSE, RealSystem
from pspike_jax.functional.engine import Engine, parse_engine
from pspike_jax.functional.recurrence import linear_recurrence

_PRECISION = jax.lax.Precision.HIGHEST


class Diagonal(NamedTuple):
    """Discretised diagonal dynamics.

    Attributes:
      transition: (P,) complex, or (B, L, P) where steps differ.
      gain: (P,) complex, or (B, L, P), what a drive is multiplied by.
    """

    transition: jax.Array
    gain: jax.Array


class Blocks(NamedTuple):
    """Discretised dynamics of pairs (velocity, position), of which the position is read.

    Attributes:
      transition: (P, 2, 2) real, or (B, L, P, 2, 2) where steps differ.
      gain: (P, 2) real, or (B, L, P, 2).
    """

    transition: jax.Array
    gain: jax.Array


def from_the_end(kind, u, system, start, resets):
    """Evaluate as `evaluate_whole` does, on the sequence turned around."""
    y, state = evaluate_whole(kind, u[:, ::-1], system, start, _turned_resets(resets))
    return y[:, ::-1], state


def multi_input_ssm(
    u: jax.Array,
    dynamics: Diagonal | Blocks,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
    evaluate: tuple[Evaluate, Evaluate] = (evaluate_whole, from_the_end),
) -> tuple[jax.Array, jax.Array]:
    """Run a state space that all features share; there is no hidden factor 2.

    Args:
      u: (B, L, H) real.
      dynamics: of the P states; float32 and complex64 whatever comes in.
      B: (P, H) complex.
      C: (H', P) complex, or (2, H', P): C[1] reads the anti-causal state, current step included.
        Without D there may be other than H outputs.
      D: (H,) real skip, or None.
      initial_state: (B, P) complex, (B, P, 2) with blocks, before the first step; zero if None.
        The anti-causal state always starts from zero.
      resets: (B, L) bool; where true the sequence starts anew, in both directions.
      engine: `sequential`, `associative`, or `chunked` for dynamics that are the same at each step.
        `auto` takes `chunked` for those and `associative` for the others.
      evaluate: how the chunked engine runs a sequence forth and back.

    Returns:
      y: (B, L, H') float32.
      final_state: of initial_state's shape, complex64.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit, or an engine that cannot run these dynamics.
    """
    B, C = jnp.asarray(B, jnp.complex64), jnp.asarray(C, jnp.complex64)
    _check(u, dynamics, B, C, D, initial_state, resets)
    engine = _engine(engine, u.shape[1], dynamics)
    dtype = jnp.float32 if isinstance(dynamics, Blocks) else jnp.complex64
    dynamics = type(dynamics)(*(jnp.asarray(a, dtype) for a in dynamics))
    values = u.astype(jnp.float32)
    drive = _einsum("blh,ph->blp", values, jnp.concatenate([B.real, B.imag]))
    drive = jax.lax.complex(*jnp.split(drive, 2, axis=-1))
    if initial_state is not None:
        initial_state = initial_state.astype(jnp.complex64)
    causal = C if C.ndim == 2 else C[0]
    seen, final_state = _run(engine, dynamics, drive, initial_state, resets, evaluate[0])
    y = _read(seen, causal)
    if C.ndim == 3:
        y = y + _read(_ahead(engine, dynamics, drive, resets, evaluate[1]), C[1])
    if D is not None:
        y = y + broadcast_to_rank(jnp.asarray(D, jnp.float32), 3) * values
    return y, final_state


def run_modes(
    drive: jax.Array,
    dynamics: Diagonal,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
) -> tuple[jax.Array, jax.Array]:
    """Return the states themselves of complex drives that are given, causal, with no readout.

    Args:
      drive: (B, L, P) complex.
      dynamics: of the P states.
      initial_state, resets, engine: as in `multi_input_ssm`.

    Returns:
      states: (B, L, P) complex64; final_state: (B, P) complex64.
    """
    engine = _engine(engine, drive.shape[1], dynamics)
    dynamics = Diagonal(*(jnp.asarray(a, jnp.complex64) for a in dynamics))
    drive = drive.astype(jnp.complex64)
    return _run(engine, dynamics, drive, initial_state, resets, evaluate_whole)


def is_time_invariant(dynamics: Diagonal | Blocks) -> bool:
    """Say whether all steps share the transition."""
    return dynamics.transition.ndim == (3 if isinstance(dynamics, Blocks) else 1)


def _engine(engine, length, dynamics):
    engine = parse_engine(engine)
    invariant = is_time_invariant(dynamics)
    if engine is Engine.AUTO:
        if length == 1:
            return Engine.SEQUENTIAL
        return Engine.CHUNKED if invariant else Engine.ASSOCIATIVE
    if engine is Engine.FFT or (engine is Engine.CHUNKED and not invariant):
        raise ValueError(
            f"the {engine.value} engine cannot run "
            f"{'shared' if invariant else 'per-step'} multi-input dynamics"
        )
    return engine


def _run(engine, dynamics, drive, initial_state, resets, evaluate):
    """Return the causal states that are read, (B, L, P), and the final state."""
    blocks = isinstance(dynamics, Blocks)
    if engine is Engine.CHUNKED:
        run = _chunked_blocks if blocks else _chunked_diagonal
        return run(dynamics, drive, initial_state, resets, evaluate)
    transition, gain = (a.astype(jnp.complex64) for a in dynamics)
    rank = 5 if blocks else 3
    pushed = (drive[..., None] if blocks else drive) * broadcast_to_rank(gain, rank - blocks)
    states = linear_recurrence(
        broadcast_to_rank(transition, rank),
        pushed,
        initial_state=initial_state,
        resets=resets,
        engine=engine,
    )
    return (states[..., 1] if blocks else states), states[:, -1]


def _ahead(engine, dynamics, drive, resets, evaluate):
    """Return the anti-causal states that are read, (B, L, P)."""
    if engine is Engine.CHUNKED:
        return _run(engine, dynamics, drive, None, resets, evaluate)[0]
    blocks = isinstance(dynamics, Blocks)
    ranks = (3, 2) if blocks else (1, 1)

    def turn(array, shared_rank):
        if array.ndim == shared_rank:
            return array
        return jnp.concatenate([array[:, 1:], array[:, -1:]], axis=1)[:, ::-1]

    turned = type(dynamics)(*(turn(a, rank) for a, rank in zip(dynamics, ranks)))
    return _run(engine, turned, drive[:, ::-1], None, _turned_resets(resets), None)[0][:, ::-1]


def _turned_resets(resets):
    """Return where the sequence turned around starts anew: a reset cuts between t - 1 and t."""
    if resets is None:
        return None
    return jnp.pad(resets[:, 1:], [(0, 0), (0, 1)])[:, ::-1]


def _chunked_blocks(dynamics, drive, initial_state, resets, evaluate):
    batch, states = drive.shape[0], drive.shape[-1]
    identity = jnp.eye(2, dtype=jnp.float32)[None]
    read = jnp.tile(jnp.array([0.0, 1.0], jnp.float32), (states, 1, 1))
    # Matrices act on rows here.
    increment = dynamics.transition.swapaxes(1, 2) - identity
    system = RealSystem(increment, dynamics.gain, read)
    start = None if initial_state is None else _as_examples(initial_state).swapaxes(0, 1)
    with jax.named_scope(Engine.CHUNKED.scope):
        y, last = evaluate(
            DENSE, _as_examples(drive), system, start, _as_examples(resets, real=True)
        )
    last = last.swapaxes(0, 1)
    return (
        jax.lax.complex(y[:batch], y[batch:]),
        jax.lax.complex(last[:batch], last[batch:]),
    )


def _chunked_diagonal(dynamics, drive, initial_state, resets, evaluate):
    batch, states = drive.shape[0], drive.shape[-1]
    # A real drive leaves a complex state, whose two parts are two features' outputs, 1 and -i
    # times the state; the imaginary drive's states are turned by i when they are added.
    poles = jnp.tile(dynamics.transition, 2)[:, None]
    turn = jnp.concatenate([jnp.full(states, 1 + 0j), jnp.full(states, -1j)])
    start = None
    if initial_state is not None:
        start = jnp.concatenate([initial_state, jnp.zeros_like(initial_state)])
        start = jnp.tile(start, 2)[..., None]
    pushed = drive * broadcast_to_rank(dynamics.gain, 3)
    y, last = chunked_ssm(
        jnp.tile(_as_examples(pushed), 2),
        poles,
        jnp.ones_like(poles),
        turn[:, None].astype(jnp.complex64),
        start,
        _as_examples(resets, real=True),
        evaluate,
    )
    seen = jax.lax.complex(y[..., :states], y[..., states:])
    last = last[:, :states, 0]
    return seen[:batch] + 1j * seen[batch:], last[:batch] + 1j * last[batch:]


def _as_examples(array, real=False):
    """Return real and imaginary parts (B, ...) as examples (2B, ...)."""
    if array is None:
        return None
    return jnp.concatenate([array, array] if real else [array.real, array.imag])


def _read(states, C):
    parts = jnp.concatenate([states.real, states.imag], axis=-1)
    return _einsum("blp,hp->blh", parts, jnp.concatenate([C.real, -C.imag], axis=-1))


def _einsum(equation, *operands):
    return jnp.einsum(equation, *operands, precision=_PRECISION)


def _check(u, dynamics, B, C, D, initial_state, resets):
    if u.ndim != 3 or jnp.issubdtype(u.dtype, jnp.complexfloating) or not u.shape[1]:
        raise ValueError(f"u must be real (B, L, H) with a step at least; got {u.dtype} {u.shape}")
    batch, length, features = u.shape
    states = B.shape[0]
    outputs = features if D is not None or C.ndim < 2 else C.shape[-2]
    pair = (2,) if isinstance(dynamics, Blocks) else ()
    steps = (batch, length)
    expected = {
        "B": (B, [(states, features)]),
        "C": (C, [(outputs, states), (2, outputs, states)]),
        "D": (D, [(features,)]),
        "transition": (dynamics.transition, [(states, *pair * 2), (*steps, states, *pair * 2)]),
        "gain": (dynamics.gain, [(states, *pair), (*steps, states, *pair)]),
        "initial_state": (initial_state, [(batch, states, *pair)]),
        "resets": (resets, [steps]),
    }
    for name, (value, shapes) in expected.items():
        if value is not None and jnp.shape(value) not in shapes:
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"{name} has shape {jnp.shape(value)}; u {u.shape} expects {wanted}")
    if resets is not None and resets.dtype != bool:
        raise TypeError(f"resets must be bool, not {resets.dtype}")
    if pair and jnp.iscomplexobj(dynamics.transition):
        raise ValueError("blocks must be real")
