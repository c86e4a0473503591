"""Pure functions: arrays in, arrays out. No Flax, no configuration, no files."""

from pspike_jax.functional.convolution import convolve, ssm_kernel
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.noise import uniforms
from pspike_jax.functional.recurrence import linear_recurrence
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
    "Engine",
    "arctan",
    "boxcar",
    "clamp_straight_through",
    "convolve",
    "expected_firing",
    "heaviside",
    "linear_recurrence",
    "linear_ssm",
    "no_gradient",
    "sample_spikes",
    "sigmoid",
    "ssm_kernel",
    "superspike",
    "triangular",
    "uniforms",
]
