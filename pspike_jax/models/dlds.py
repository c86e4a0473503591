"""Decomposed linear dynamics (dLDS, arXiv 2206.02972) as a model that forecasts its inputs.

States are the inputs; coefficients of each step are inferred, not learnt, and tell the next one.
`recipes.dlds.fit_dlds` is the authors' own fit; here gradients reach the operators through what
is inferred, so that `fit` and any objective of steps can train them.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional import dlds
from pspike_jax.functional.activity import valid_steps
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.roles import role


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLDSConfig(Config):
    """Fields of dLDS."""

    comparable = False

    num_outputs: int = option(3, "features p, of the inputs and of the forecast")
    encoder: str = option("none", "inputs are the states", choices=("none",))
    head: str = option("none", "forecasts are states", choices=("none",))
    pool: str = option("none", "a forecast at every step", choices=("none",))
    precision: str = option("float32", "of everything", choices=("float32",))
    remat: str = option("none", "what the backward pass computes again", choices=("none",))
    operators: int = option(2, "M; with M >= p any step is explained, which says nothing")
    solver: str = option("ridge", "of the coefficients", choices=("ridge", "fista"))
    penalty: float = option(1e-3, "weight of |c|^2, or of |c|_1 with fista", low=0)
    smooth: float = option(0.0, "weight of |c_t - c_{t-1}|^2", low=0)
    iterations: int = option(100, "of fista")
    weight: float = option(1.0, "of the steps' unexplained squares in the training loss", low=0)

    def check(self) -> None:
        """Raise ValueError where fields do not fit together."""
        super().check()
        if self.vocab_size is not None:
            raise ValueError("vocab_size must be None: inputs are states")
        if self.solver == "ridge" and not self.penalty:
            raise ValueError("penalty is 0; a ridge has a gradient everywhere only above it")


class DLDS(SequenceModel):
    """A few linear operators, mixed anew at every step, that forecast their inputs.

    Outputs (B, L, p): at step t the state at t + 1, by the coefficients that explain the step to t;
    at the first one, which nothing explains yet, the state itself. With `capture`, aux has
    "coefficients" (B, L - 1, M). `aux["losses"]["unexplained"]` is the mean square of what the
    inferred coefficients leave.
    """

    config: DLDSConfig

    def setup(self):
        """Make the operators."""
        config, p = self.config, self.config.num_outputs
        start = lambda key, shape: jax.random.normal(key, shape, jnp.float32) * p**-0.5
        draw = role(start, (None, "features", "inputs"), "dynamics")
        self.operators = self.param("operators", draw, (config.operators, p, p))

    def _run(self, inputs, state, ctx):
        config, x = self.config, inputs.astype(jnp.float32)
        if x.shape[-1] != config.num_outputs:
            raise ValueError(f"inputs have {x.shape[-1]} features; expected {config.num_outputs}")
        aux = {"sites": {}, "losses": {}, "macs": self._macs(x, ctx)}
        if x.shape[1] == 1:
            return x, aux, None
        infer = functools.partial(
            dlds.infer_coefficients, self.operators, solver=config.solver,
            penalty=config.penalty, smooth=config.smooth, iterations=config.iterations,
        )
        coefficients = jax.vmap(infer)(x)
        left = x[:, 1:] - dlds.predict(self.operators, coefficients, x[:, :-1])
        squares = jnp.mean(left**2, axis=-1)
        mask = jnp.ones(squares.shape, bool) if ctx.mask is None else ctx.mask[:, 1:]
        total = jnp.sum(jnp.where(mask, squares, 0))
        unexplained = total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)
        aux["losses"] = {"unexplained": jnp.float32(config.weight) * unexplained}
        if ctx.capture:
            aux["coefficients"] = coefficients
        ahead = dlds.predict(self.operators, coefficients, x[:, 1:])
        return jnp.concatenate([x[:, :1], ahead], axis=1), aux, None

    @nn.nowrap
    def _macs(self, x, ctx):
        M, p = self.config.operators, self.config.num_outputs
        solve = M**2 * (p + (self.config.iterations if self.config.solver == "fista" else M))
        steps = valid_steps(x, ctx.mask)
        return {
            "encoder": jnp.float32(0), "head": jnp.float32(0),
            "state": steps * jnp.float32(M * p**2 + M * p),
            "dense": steps * jnp.float32(solve),
        }


PRESETS = {
    "lorenz": DLDSConfig(),
    "sparse": DLDSConfig(solver="fista", operators=4, penalty=0.05),
    "tiny": DLDSConfig(num_outputs=2, operators=2, penalty=0.1),
}
