"""Selective state spaces (Mamba's S6) over maps of tokens (h, w), read in four orders.

Orders are rows, rows from the end, columns, columns from the end. "ssm" runs one causal block on
each of them, with the same parameters; "ss2d" convolves in the plane and has parameters of its own
for each order. Neither has a projection of its outputs.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.gated import selective_recurrence
from pspike_jax.nn.norm import layer_norm
from pspike_jax.nn.roles import role

TAPS = 4  # of the causal convolution
DT_RANGE = (1e-3, 1e-1)  # of the first time steps
DT_FLOOR = 1e-4


def orders(height: int, width: int) -> np.ndarray:
    """Return (4, h w) places, row by row numbers, in the order in which they are read."""
    rows = np.arange(height * width)
    columns = rows.reshape(height, width).T.reshape(-1)
    return np.stack([rows, rows[::-1], columns, columns[::-1]])


def uniform(fan_in: int):
    """Return an initializer U(-1, 1) / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def step_bias(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw biases whose softplus is log-uniform over Mamba's range of time steps."""
    low, high = map(math.log, DT_RANGE)
    dt = jnp.exp(jax.random.uniform(key, shape, jnp.float32, low, high))
    dt = jnp.maximum(dt, DT_FLOOR)
    return dt + jnp.log(-jnp.expm1(-dt))


def log_rates(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return log n for n = 1 .. N along the last axis."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=jnp.float32)), shape)


class SelectiveMap(nn.Module):
    """Tokens (B, h w, E), in a plane, to tokens, by their four orders.

    Attributes:
      kind: "ssm" or "ss2d".
      size: (h, w).
      d_state: N.
      rank: of the product that tells time steps.
      closed: gates start at 0, so that the outputs do.
    """

    kind: str
    size: tuple[int, int]
    d_state: int
    rank: int
    closed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run the block.

        Returns:
          y: (B, L, E).
          parts: "gate" (B, L, E) before its activation; "dt" (B, G, L, rank), "b" and "c"
            (B, G, L, N), of G orders: of the first alone where parameters are shared.
        """
        features = x.shape[-1]
        kernel = self._param("in_proj", self._projection, (features, 2 * features), "decay")
        x, gate = jnp.split(x @ kernel, 2, axis=-1)
        if self.kind == "ssm":
            return self._shared(x, gate)
        x = jax.nn.silu(self._plane(x))
        order = orders(*self.size)
        y, parts = self._recurrence(jnp.stack([x[:, o] for o in order], axis=2), 4)
        back = np.argsort(order, axis=1)
        y = sum(y[:, o, i] for i, o in enumerate(back))
        y = layer_norm("out_norm")(y) * jax.nn.silu(gate)
        return y, parts | {"gate": gate}

    def _shared(self, x, gate):
        """Run all orders as rows of one batch."""
        batch, length, features = x.shape
        order = orders(*self.size)
        wide = x[:, order].swapaxes(0, 1).reshape(4 * batch, length, features)
        wide = jax.nn.silu(self._causal(wide))
        y, parts = self._recurrence(wide[:, :, None], 1)
        y = y.reshape(4, batch, length, features)
        y = sum(y[i][:, o] for i, o in enumerate(np.argsort(order, axis=1)))
        first = {name: part[:batch] for name, part in parts.items()}
        return y * jax.nn.silu(gate), first | {"gate": self._summed(gate)}

    def _summed(self, gate):
        """Add the gates of all orders as the program does: reversed ones turn channels, not time.

        Their time stays reversed, too. Only suppression looks at this sum, by its norm.
        """
        columns = orders(*self.size)[2]
        turned = gate[:, columns][:, ::-1, ::-1][:, np.argsort(columns)]
        return 2 * gate + gate[:, ::-1, ::-1] + turned

    def _causal(self, x):
        features, length = x.shape[-1], x.shape[1]
        kernel = self._param("conv", uniform(TAPS), (TAPS, features), "decay")
        bias = self._param("conv_bias", uniform(TAPS), (features,), "no_decay")
        x = jnp.pad(x, ((0, 0), (TAPS - 1, 0), (0, 0)))
        taps = (x[:, i : i + length] * kernel[i][None, None] for i in range(TAPS))
        return sum(taps) + bias[None, None]

    def _plane(self, x):
        (h, w), features = self.size, x.shape[-1]
        kernel = self._param("conv", uniform(9), (3, 3, features), "decay")
        bias = self._param("conv_bias", uniform(9), (features,), "no_decay")
        plane = jnp.pad(x.reshape(-1, h, w, features), ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = (
            plane[:, i : i + h, j : j + w] * kernel[i, j][None, None, None]
            for i in range(3) for j in range(3)
        )
        return sum(taps).reshape(x.shape) + bias[None, None]

    def _recurrence(self, x, groups):
        """Run x (B, L, G, E); each group has parameters of its own."""
        features, r, n = x.shape[-1], self.rank, self.d_state
        x_proj = self._param("x_proj", uniform(features), (groups, features, r + 2 * n), "decay")
        dt_proj = self._param("dt_proj", uniform(r), (groups, r, features), "step_size")
        dt_bias = self._param("dt_bias", step_bias, (groups, features), "step_size")
        rates = self._param("A_log", log_rates, (groups, features, n), "dynamics")
        ones = lambda key, shape: jnp.ones(shape, jnp.float32)
        skip = self._param("D", ones, (groups, features), "no_decay")
        told = jnp.einsum("blge,gef->blgf", x, x_proj)
        low, b, c = jnp.split(told, [r, r + n], axis=-1)
        dt = jax.nn.softplus(jnp.einsum("blgr,gre->blge", low, dt_proj) + dt_bias[None, None])
        flat = lambda a: a.reshape(*a.shape[:2], -1)
        A = -jnp.exp(rates).reshape(-1, n)
        y, _ = selective_recurrence(flat(dt * x), flat(dt), A, b, c)
        y = y.reshape(x.shape) + skip[None, None] * x
        parts = {"dt": low, "b": b, "c": c}
        parts = {name: part.swapaxes(1, 2) for name, part in parts.items()}
        return (y[:, :, 0] if groups == 1 else y), parts

    def _projection(self, key, shape):
        kernel = uniform(shape[0])(key, shape)
        return kernel.at[:, shape[1] // 2 :].set(0) if self.closed else kernel

    def _param(self, name, init, shape, group):
        last = {"A_log": ("features", "state"), "D": ("features",), "dt_bias": ("features",)}
        axes = last.get(name, ("inputs", "features")[-min(len(shape), 2) :])
        axes = (None,) * (len(shape) - len(axes)) + axes
        return self.param(name, role(init, axes, group), shape)
