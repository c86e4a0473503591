"""Recurrences whose decay changes with every step: two signatures over one set of engines.

`selective_recurrence` has decays exp(dt_t A), one for each state of each channel, that no array
ever holds for all steps (Mamba's S6). `gated_recurrence` has matrices as states, to which each step
adds an outer product (Mamba-2's SSD, gated linear attention; with matrices of one column, any
diagonal recurrence).
"""

import functools

import jax

from pspike_jax.functional.engine import PLATFORMS, Engine, parse_engine
from pspike_jax.functional.gated.choice import choose_gated_engine
from pspike_jax.functional.gated.plain import all_at_once, step_by_step
from pspike_jax.functional.gated.problem import Problem, gated_problem, selective_problem
from pspike_jax.functional.gated.segments import evaluate


def selective_recurrence(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    b: jax.Array,
    c: jax.Array,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
) -> tuple[jax.Array, jax.Array]:
    """Run h_t[d] = exp(dt_t[d] A[d]) h_{t-1}[d] + x_t[d] b_t and y_t[d] = <c_t, h_t[d]>.

    States are float32 whatever the inputs' dtype, or float64 where an input is. S6 of Mamba
    (arXiv:2312.00752) has x = dt u: an exponential for A and an Euler step for b.

    Args:
      x: (B, L, D), what enters.
      dt: (B, L, D), time that passes, at least 0.
      A: (D, N), rates, negative where states decay.
      b: (B, L, N), how x enters; (B, L, G, N) where group g serves channels g D/G .. (g+1) D/G - 1.
      c: as b, how states are read.
      initial_state: (B, D, N), the state before the first step; zero if None.
      resets: (B, L) bool; the state before step t becomes zero where resets[t] is true.
      engine: `sequential` (also differentiable forwards), `associative`, `chunked` or `auto`.

    Returns:
      y: (B, L, D) float32.
      final_state: (B, D, N) float32, h after the last step.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit, or an engine that is none of these.
    """
    return _evaluate(selective_problem(x, dt, A, b, c, initial_state, resets), engine)


def gated_recurrence(
    x: jax.Array,
    b: jax.Array,
    c: jax.Array,
    log_decay: jax.Array,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
) -> tuple[jax.Array, jax.Array]:
    """Run S_t = a_t * S_{t-1} + b_t x_t^T and y_t = S_t^T c_t, with a_t = exp(log_decay_t).

    States are float32 whatever the inputs' dtype, or float64 where an input is. SSD of Mamba-2
    (arXiv:2405.21060) has one decay for a head; gated linear attention (arXiv:2312.06635) has one
    for each row of S, values for x, keys for b and scaled queries for c.

    Args:
      x: (B, L, H, P), columns of what enters.
      b: (B, L, H, N), rows of what enters; (B, L, G, N) where each of G groups serves H / G heads.
      c: as b, how states are read.
      log_decay: (B, L, H) where all rows decay alike, or (B, L, H, N); at most 0, and -inf forgets.
      initial_state: (B, H, N, P), the state before the first step; zero if None.
      resets: (B, L) bool; the state before step t becomes zero where resets[t] is true.
      engine: `sequential` (also differentiable forwards), `associative`, `chunked` or `auto`.

    Returns:
      y: (B, L, H, P) float32.
      final_state: (B, H, N, P) float32, S after the last step.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit, or an engine that is none of these.
    """
    return _evaluate(gated_problem(x, b, c, log_decay, initial_state, resets), engine)


def _evaluate(problem: Problem, engine: Engine | str) -> tuple[jax.Array, jax.Array]:
    engine = parse_engine(engine)
    if engine is Engine.FFT:
        raise ValueError("engine fft needs a decay that does not change; see linear_ssm")
    arguments = problem.inputs, problem.shared, problem.start, problem.resets
    run = functools.partial(_run, problem.kind)
    if engine is Engine.AUTO:
        y, state = _auto(run, problem.inputs.x.shape[1], *arguments)
    else:
        y, state = run(engine, *arguments)
    return y.reshape(problem.shapes[0]), state.reshape(problem.shapes[1])


def _auto(run, length, *arguments):
    """Run the engine of the rules, on whichever platform the program is lowered for."""
    engines = {name: choose_gated_engine(row, length) for name, row in PLATFORMS.items()}
    if len(set(engines.values())) == 1:
        return run(engines["cpu"], *arguments)
    runs = {name: functools.partial(run, engine) for name, engine in engines.items()}
    unknown = functools.partial(run, Engine.CHUNKED)
    return jax.lax.platform_dependent(*arguments, default=unknown, **runs)


def _run(kind, engine, inputs, shared, start, resets):
    with jax.named_scope(engine.scope):
        if engine is Engine.CHUNKED:
            return evaluate(kind.form, inputs, shared, start, resets)
        scan = step_by_step if engine is Engine.SEQUENTIAL else all_at_once
        return scan(kind.equations(shared), inputs, start, resets)
