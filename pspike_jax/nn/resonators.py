"""Spikes of resonators that never reset: a recurrence, parallel in time, and a threshold."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.resonators import init_resonator, resonator
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import scale_and_shift
from pspike_jax.nn.placement import System, placed_ssm
from pspike_jax.nn.roles import Role

# Groups of a resonator's parameters, for optimizers.
GROUPS = {"log_dt": "step_size", "theta_log": "dynamics", "gamma": "dynamics"}


class ResonatorSite(nn.Module):
    """PRF's neurons without a reset (arXiv 2410.03530), see `functional.resonators`.

    Attributes:
      features: H.
      fan_out: operations that one spike triggers, for the activity record.
      surrogate: name in `functional.SURROGATES`.
      tau: time constant, where training starts if it is trained.
      fr_scale: frequencies start below 2 pi / fr_scale.
      dt_min: smallest initial step.
      dt_max: largest initial step.
      threshold: V; a membrane at the threshold fires.
      trained_rate: each neuron trains its time constant.
      affine: own scale and shift of the drive.
      engine: how the recurrence is evaluated.
    """

    features: int
    fan_out: int
    surrogate: str = "arctan"
    tau: float = 2.0
    fr_scale: float = 1.0
    dt_min: float = 1e-3
    dt_max: float = 0.1
    threshold: float = 1.0
    trained_rate: bool = True
    affine: bool = False
    engine: Engine | str = Engine.AUTO

    @nn.compact
    def __call__(
        self, drive: jax.Array, state: jax.Array | None, ctx: Pass
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Run the neurons over time.

        Args:
          drive: (B, L, H).
          state: (B, H, 1) complex64, zero if None.
          ctx: the pass; its resets start the membranes anew.

        Returns:
          spikes: (B, L, H); state: after the last step; activity: counts over valid steps.
        """
        membrane, state = self._membrane(drive, state, ctx)
        v = membrane - self.threshold
        slope = SURROGATES[self.surrogate]
        spikes = fire(slope, True, v).astype(drive.dtype)
        record = activity(spikes, spikes, slope(v) != 0, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": spikes}
            record |= {"membrane_array": membrane, "drive_array": v}
        return spikes, state, record

    def _membrane(self, drive, state, ctx):
        """Return Re z (B, L, H) float32, and the state after the last step."""
        params = self.param("neuron", self._init)
        drive = scale_and_shift(self, drive) if self.affine else drive
        rate = jnp.exp(params["gamma"]) if self.trained_rate else 1 / self.tau
        beta, dt = resonator(params["log_dt"], params["theta_log"], rate)
        gain = dt.astype(beta.dtype)[:, None]
        system = System(beta[:, None], gain, jnp.ones_like(gain))
        return placed_ssm(drive, system, state, resets=ctx.resets, engine=self.engine)

    @nn.nowrap
    def _init(self, key):
        params = init_resonator(
            key, self.features, tau=self.tau, fr_scale=self.fr_scale, dt_min=self.dt_min,
            dt_max=self.dt_max, trained_rate=self.trained_rate,
        )
        return {name: Role(value, ("features",), GROUPS[name]) for name, value in params.items()}

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return membranes at rest."""
        return jnp.zeros((batch_size, self.features, 1), jnp.complex64)


def in_reverse(site: nn.Module, drive: jax.Array, ctx: Pass):
    """Run a site from the last step to the first, on drives (B, L, H) that are 0 in padding.

    Returns:
      spikes (B, L, H) and activity, in the order of the drive's steps.
    """
    mask = None if ctx.mask is None else ctx.mask[:, ::-1]
    spikes, _, record = site(drive[:, ::-1], None, ctx.replace(mask=mask, lengths=None))
    arrays = {name: value[:, ::-1] for name, value in record.items() if name.endswith("_array")}
    return spikes[:, ::-1], record | arrays
