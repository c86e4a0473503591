"""Sequence mixers: what carries information over time, one file a kind.

A mixer maps (u (B, L, H), state, ctx) to (y (B, L, H) float32, state), and has `zero_state`,
`macs_per_step`, `fan_out`, the real numbers that one spike adds to, and `supports`, what it can do
beside whole sequences, named as `SequenceModel.supports` does. `MIXERS` builds each kind from a
model's configuration, so that any block can have any of them; a builder takes the configuration,
whether the mixer looks both ways, adds a skip D u, and reads spikes, and what every module takes.
Mixers whose decays follow their inputs look one way, `ONE_SIDED`, and have a skip of their own.
"""

from pspike_jax.nn.mixers.diagonal import DiagonalSSM
from pspike_jax.nn.mixers.dplr import DPLRSSM
from pspike_jax.nn.mixers.exponential_sums import ExponentialSumSSM
from pspike_jax.nn.mixers.oscillator import OscillatorSSM
from pspike_jax.nn.mixers.s5 import S5SSM
from pspike_jax.nn.mixers.gla import GatedLinearAttention
from pspike_jax.nn.mixers.selective import SelectiveMixer
from pspike_jax.nn.mixers.ssd import SSDMixer


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


def _selective(config, *, two_sided, skip, **how) -> SelectiveMixer:
    del two_sided, skip
    sizes = {"features": config.d_model, "d_state": config.d_state, "expand": 1}
    steps = {"dt_min": config.dt_min, "dt_max": config.dt_max}
    return SelectiveMixer(**sizes, **steps, engine=config.engine, **how)


def _gated(config, *, two_sided, skip, **how) -> GatedLinearAttention:
    del two_sided, skip
    # Heads of 64 features, or one.
    heads = config.d_model // 64 if config.d_model % 64 == 0 else 1
    sizes = {"features": config.d_model, "d_state": config.d_state, "heads": heads}
    return GatedLinearAttention(**sizes, engine=config.engine, **how)


def _common(config):
    return {
        "features": config.d_model,
        "d_state": config.d_state,
        "shared": config.shared_dynamics,
        "dt_min": config.dt_min,
        "dt_max": config.dt_max,
        "engine": config.engine,
    }


def macs_of(mixer) -> dict[str, int]:
    """Return the multiply-accumulates of one step of a mixer, as a block's aux counts them."""
    dense = getattr(mixer, "dense_macs_per_step", 0)
    return {"state": mixer.macs_per_step} | ({"dense": dense} if dense else {})


# "oscillator" and "s5" are one state for all features: d_state oscillators, or d_state / 2 modes.
MIXERS = {
    "diagonal": _diagonal,
    "dplr": _dplr,
    "exponential_sums": _exponential_sums,
    "gated": _gated,
    "oscillator": _oscillator,
    "s5": _s5,
    "selective": _selective,
}
ONE_SIDED = frozenset({"gated", "selective"})

__all__ = [
    "DPLRSSM",
    "DiagonalSSM",
    "ExponentialSumSSM",
    "GatedLinearAttention",
    "MIXERS",
    "ONE_SIDED",
    "OscillatorSSM",
    "S5SSM",
    "SSDMixer",
    "SelectiveMixer",
    "macs_of",
]
