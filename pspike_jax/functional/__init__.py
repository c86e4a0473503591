"""Pure functions: arrays in, arrays out. No Flax, no configuration, no files."""

from pspike_jax.functional.convolution import convolve, ssm_kernel
from pspike_jax.functional.delays import delay
from pspike_jax.functional.discretization import (
    discretize_bilinear,
    discretize_bilinear_dplr,
    discretize_zoh,
)
from pspike_jax.functional.dplr import dplr_kernel, length_attuned
from pspike_jax.functional.engine import Engine
from pspike_jax.functional.engine_choice import explain_engine
from pspike_jax.functional.estimators import ESTIMATORS, score_loss, stochastic_spikes
from pspike_jax.functional.gated import gated_recurrence, selective_recurrence
from pspike_jax.functional.fractional import fractional_memory
from pspike_jax.functional.initializers import (
    hippo_legs_matrix,
    hippo_legs_nplr,
    log_uniform_dt,
    s4d_inv,
    s4d_legs,
    s4d_lin,
)
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.multi_input import multi_input_ssm
from pspike_jax.functional.noise import threefry_key, uniforms
from pspike_jax.functional.oscillator import discretize_oscillators
from pspike_jax.functional.prefix import tree_prefixes
from pspike_jax.functional.recurrence import linear_recurrence
from pspike_jax.functional.sampling import expected_firing, heaviside, sample_spikes
from pspike_jax.functional.selective import selective_scan, ssd_scan
from pspike_jax.functional.short_convolution import short_convolution
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
    "ESTIMATORS",
    "Engine",
    "SURROGATES",
    "arctan",
    "boxcar",
    "clamp_straight_through",
    "convolve",
    "delay",
    "discretize_bilinear",
    "discretize_bilinear_dplr",
    "discretize_oscillators",
    "discretize_zoh",
    "dplr_kernel",
    "expected_firing",
    "explain_engine",
    "fractional_memory",
    "gated_recurrence",
    "heaviside",
    "hippo_legs_matrix",
    "hippo_legs_nplr",
    "length_attuned",
    "linear_recurrence",
    "linear_ssm",
    "log_uniform_dt",
    "multi_input_ssm",
    "no_gradient",
    "s4d_inv",
    "s4d_legs",
    "s4d_lin",
    "sample_spikes",
    "score_loss",
    "selective_recurrence",
    "selective_scan",
    "short_convolution",
    "sigmoid",
    "ssd_scan",
    "ssm_kernel",
    "stochastic_spikes",
    "superspike",
    "threefry_key",
    "tree_prefixes",
    "triangular",
    "uniforms",
]
