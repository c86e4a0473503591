"""Which numbers are kept in how many bits, by name.

"float32" keeps everything in float32. "bfloat16" keeps activations (residual stream, spikes, the
inputs and outputs of dense maps and their products) in bfloat16. Parameters, their gradients,
poles, step sizes, kernels, states, drives and uniforms of samplers, normalisation, pooling, class
scores and losses are float32 in both: a decay of 0.999 is 1 in bfloat16.
"""

import jax.numpy as jnp

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
