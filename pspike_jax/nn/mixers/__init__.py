"""Sequence mixers: what carries information over time, one file a kind.

A mixer maps (u (B, L, H), state, ctx) to (y (B, L, H) float32, state), and has `zero_state`,
`macs_per_step`, `fan_out`, the real numbers that one spike adds to, and `supports`, what it can do
beside whole sequences, named as `SequenceModel.supports` does. `MIXERS` builds each kind from a model's configuration, so that any block can have
any of them; a builder takes the configuration, whether the mixer looks both ways, adds a skip D u,
and reads spikes, and what every module takes.
"""

from pspike_jax.nn.mixers.diagonal import DiagonalSSM
from pspike_jax.nn.mixers.dplr import DPLRSSM
from pspike_jax.nn.mixers.exponential_sums import ExponentialSumSSM


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


def _common(config):
    return {
        "features": config.d_model,
        "d_state": config.d_state,
        "shared": config.shared_dynamics,
        "dt_min": config.dt_min,
        "dt_max": config.dt_max,
        "engine": config.engine,
    }


MIXERS = {"diagonal": _diagonal, "dplr": _dplr, "exponential_sums": _exponential_sums}

__all__ = ["MIXERS", "DPLRSSM", "DiagonalSSM", "ExponentialSumSSM"]
