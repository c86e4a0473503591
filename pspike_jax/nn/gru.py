"""A gated recurrent unit in PyTorch's convention: three gates, a bias on either side."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.roles import role


class GRU(nn.Module):
    """h_t = (1 - u) c + u h_{t-1}, with c = tanh(a_c + r b_c); gates in the order r, u, c.

    a = W x_t + bias and b = V h_{t-1} + bias; all parameters start from U(-1, 1) / sqrt(H).

    Attributes:
      features: H.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """Run a sequence from zero.

        Args:
          x: (B, L, F).
          scale: (B, L, H) factors of the states, as dropout has them, or None for 1.

        Returns:
          (B, L, H) states after each step.
        """
        wide, bound = 3 * self.features, self.features**-0.5

        def parameter(name, shape, axes, group):
            draw = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
            return self.param(name, role(draw, axes, group), shape)

        product = ("inputs", "features")
        kernel = parameter("input_kernel", (x.shape[-1], wide), product, "decay")
        recurrent = parameter("recurrent_kernel", (self.features, wide), product, "decay")
        bias = parameter("input_bias", (wide,), ("features",), "no_decay")
        recurrent_bias = parameter("recurrent_bias", (wide,), ("features",), "no_decay")

        def step(h, inputs):
            a, factor = inputs
            b = h @ recurrent + recurrent_bias[None]
            (r_a, u_a, c_a), (r_b, u_b, c_b) = (jnp.split(gates, 3, axis=-1) for gates in (a, b))
            r, u = jax.nn.sigmoid(r_a + r_b), jax.nn.sigmoid(u_a + u_b)
            h = (1 - u) * jnp.tanh(c_a + r * c_b) + u * h
            h = h if factor is None else h * factor
            return h, h

        a = jnp.moveaxis(x @ kernel + bias[None, None], 1, 0)
        scale = None if scale is None else jnp.moveaxis(scale, 1, 0)
        start = jnp.zeros((x.shape[0], self.features), jnp.float32)
        _, states = jax.lax.scan(step, start, (a, scale))
        return jnp.moveaxis(states, 0, 1)
