"""Pure functions: arrays in, arrays out. No Flax, no configuration, no files."""

from pspike_jax.functional.noise import uniforms
from pspike_jax.functional.sampling import expected_firing, heaviside, sample_spikes
from pspike_jax.functional.surrogates import (
    SURROGATES,
    arctan,
    boxcar,
    clamp_straight_through,
    no_gradient,
    sigmoid,
    superspike,
    triangular,
)

__all__ = [
    "SURROGATES",
    "arctan",
    "boxcar",
    "clamp_straight_through",
    "expected_firing",
    "heaviside",
    "no_gradient",
    "sample_spikes",
    "sigmoid",
    "superspike",
    "triangular",
    "uniforms",
]
