"""What goes into pendulums and comes out: drives as polynomials, spike times, phases."""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.pendulum import PendulumSpikes


def constant_drive(drive: jax.Array) -> jax.Array:
    """Return polynomials (L, 1, ...) for `pendulum` from drives (L, ...) held over their steps."""
    return jnp.asarray(drive, jnp.float32)[:, None]


def smooth_drive(samples: jax.Array, degree: int = 7) -> jax.Array:
    """Return polynomials for `pendulum` that pass through samples of a smooth drive.

    Near the separatrix an error of 1e-6 in the drive moves a spike by 1e-3, so the degree is high.

    Args:
      samples: (L + 1, ...), at the ends of the steps.
      degree: of the polynomials, odd; they pass through the degree + 1 samples around a step.

    Returns:
      (L, degree + 1, ...), coefficients of powers of t / dt over a step.

    Raises:
      ValueError: an even degree, or fewer than degree + 1 samples.
    """
    samples = jnp.asarray(samples, jnp.float32)
    count = degree + 1
    if count % 2 or samples.shape[0] < count:
        raise ValueError(f"degree {degree} is even or needs more than {samples.shape[0]} samples")
    windows = samples.shape[0] - degree
    inner = jnp.stack([samples[k: windows + k] for k in range(count)], axis=1)
    # The first and last steps have no samples on their other side, and share a window.
    half = degree // 2
    ends = [_through(inner[:1], k) for k in range(half)], [
        _through(inner[-1:], k) for k in range(half + 1, degree)
    ]
    return jnp.concatenate([*ends[0], _through(inner, half), *ends[1]])


def _through(values, origin):
    """Return (K, n, ...), polynomials through values (K, n, ...) at 0 .. n - 1, about `origin`."""
    count = values.shape[1]
    powers = np.float64(np.arange(count) - origin)[:, None] ** np.arange(count)
    inverse = np.linalg.inv(powers).astype(np.float32)
    return jnp.einsum("pk,nk...->np...", inverse, values, precision="highest")


def spike_times(spikes: PendulumSpikes, dt: float) -> list[np.ndarray]:
    """Collect spike times on the host, in float64.

    Args:
      spikes: from `pendulum`.
      dt: step.

    Returns:
      For each pendulum, in the order of the flattened shape (...), its spike times, ascending.
    """
    fired, offset = (np.asarray(a) for a in spikes)
    times = np.arange(fired.shape[0])[:, None] * dt
    times = times.reshape(times.shape + (1,) * (fired.ndim - 2)) + offset.astype(np.float64)
    fired, times = (a.reshape(-1, int(np.prod(a.shape[2:]))) for a in (fired, times))
    return [times[fired[:, n], n] for n in range(fired.shape[1])]


def phase_encode(
    values: jax.Array,
    steps: int,
    dt: float,
    frequency: float,
    offset: float,
    amplitude: float,
) -> jax.Array:
    """Encode values as the phase of a drive, offset + amplitude sin(2 pi (frequency t + value)).

    A pendulum that such a drive locks fires at a fixed phase of it, so the phase of its spikes
    against a clock of that frequency falls by 2 pi value: `spike_phase` reads it.

    Args:
      values: (...) in [0, 1).
      steps: L.
      dt: step.
      frequency: of the drive, in turns a unit of time.
      offset: mean drive; above omega0^2 the pendulum rotates by itself.
      amplitude: of the drive.

    Returns:
      (L + 1, ...) samples for `smooth_drive`.
    """
    values = jnp.asarray(values, jnp.float32)
    # Whole turns are taken out before rounding: a float32 time would blur the phase.
    turns = np.float32((np.arange(steps + 1) * dt * frequency) % 1.0)
    turns = jnp.asarray(turns).reshape((-1,) + (1,) * values.ndim)
    return offset + amplitude * jnp.sin(2 * jnp.pi * (turns + values[None]))


def spike_phase(spikes: PendulumSpikes, dt: float, frequency: float, after: int = 0) -> jax.Array:
    """Return the mean phase of spikes, in turns of a clock that starts at time 0.

    Args:
      spikes: from `pendulum`.
      dt: step.
      frequency: of the clock.
      after: steps to leave out, until a pendulum has locked.

    Returns:
      phase: (...) in [0, 1), the circular mean; NaN without a spike.
    """
    fired, offset = (a[after:] for a in spikes)
    turns = np.float32(((np.arange(fired.shape[0]) + after) * dt * frequency) % 1.0)
    turns = jnp.asarray(turns).reshape((-1,) + (1,) * (fired.ndim - 1))
    angle = 2 * jnp.pi * (turns + offset * frequency)
    east, north = (
        jnp.sum(jnp.where(fired, part(angle), 0), axis=(0, 1)) for part in (jnp.cos, jnp.sin)
    )
    mean = jnp.arctan2(north, east) / (2 * jnp.pi) % 1.0
    return jnp.where(jnp.any(fired, axis=(0, 1)), mean, jnp.nan)
