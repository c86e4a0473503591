"""Sequence mixers: what carries information over time, one file a kind.

A mixer maps (u (B, L, H), state, ctx) to (y (B, L, H) float32, state), and has `zero_state`,
`macs_per_step`, `fan_out`, the real numbers that one spike adds to, and `supports`, what it can do
beside whole sequences, named as `SequenceModel.supports` does. `MIXERS` builds each kind from a
model's configuration, so that any block can have any of them; a builder takes the configuration,
whether the mixer looks both ways, adds a skip D u, and reads spikes, and what every module takes.
"""

from pspike_jax.nn.mixers.diagonal import DiagonalSSM
from pspike_jax.nn.mixers.dplr import DPLRSSM
from pspike_jax.nn.mixers.exponential_sums import ExponentialSumSSM
from pspike_jax.nn.mixers.oscillator import OscillatorSSM
from pspike_jax.nn.mixers.s5 import S5SSM


def _diagonal(config, **how) -> DiagonalSSM:
    return DiagonalSSM(
        initializer=config.initializer, train_B=True, **_common(config), **how
    )


def _exponential_sums(config, **how) -> ExponentialSumSSM:
    return ExponentialSumSSM(
        initializer=config.initializer, train_B=True, **_common(config), **how
    )


def _dplr(config, **how) -> DPLRSSM:
    return DPLRSSM(length=config.l_max, **_common(config), **how)


def _oscillator(config, **how) -> OscillatorSSM:
    return OscillatorSSM(
        features=config.d_model, oscillators=config.d_state, engine=config.engine, **how
    )


def _s5(config, **how) -> S5SSM:
    return S5SSM(
        features=config.d_model,
        modes=config.d_state // 2,
        dt_min=config.dt_min,
        dt_max=config.dt_max,
        engine=config.engine,
        **how,
    )


def _common(config):
    return {
        "features": config.d_model,
        "d_state": config.d_state,
        "shared": config.shared_dynamics,
        "dt_min": config.dt_min,
        "dt_max": config.dt_max,
        "engine": config.engine,
    }


# The last two are one state for all features: d_state damped oscillators, or d_state / 2 modes.
MIXERS = {
    "diagonal": _diagonal,
    "dplr": _dplr,
    "exponential_sums": _exponential_sums,
    "oscillator": _oscillator,
    "s5": _s5,
}

__all__ = [
    "MIXERS", "DPLRSSM", "DiagonalSSM", "ExponentialSumSSM", "OscillatorSSM", "S5SSM",
]
