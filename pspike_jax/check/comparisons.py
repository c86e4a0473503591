"""What a device must compute: each comparison with what was found and what is allowed."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.check import truth
from pspike_jax.functional import Engine, linear_ssm, uniforms
from pspike_jax.models import create_model

ENGINES = tuple(engine.value for engine in Engine)
# Float32 sums of some hundred terms lose this share of the peak; TF32 and bfloat16 lose 1e-3.
VALUES, GRADIENTS = 2e-5, 5e-5
# Spikes whose probability is this close to its uniform may differ: rounding decides them.
TIES = 1e-5


class Comparison(NamedTuple):
    """One thing that a device must compute.

    Attributes:
      name: what is compared.
      found: the largest difference, as a share of the peak, or a number of elements.
      allowed: what it may be.
    """

    name: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed; NaN is not."""
        return bool(self.found <= self.allowed)


def compare_all() -> Iterator[Comparison]:
    """Yield every comparison on the default device."""
    stored = truth.load()
    yield from _engines(stored)
    yield _noise(stored)
    yield from _streams()
    yield from _bfloat16()


def _peak_share(found: jax.Array, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def _engines(stored: dict[str, np.ndarray]) -> Iterator[Comparison]:
    with jax.default_matmul_precision("float32"):
        for engine in ENGINES:
            y, u_bar = _run(engine, stored)
            yield Comparison(f"{engine}: values", _peak_share(y, stored["y"]), VALUES)
            difference = _peak_share(u_bar, stored["u_bar"])
            yield Comparison(f"{engine}: gradients", difference, GRADIENTS)


def _run(engine: str, stored: dict[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
    given = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
    Lambda = jax.lax.complex(given["Lambda_re"], given["Lambda_im"])
    C = jax.lax.complex(given["C_re"], given["C_im"])

    @jax.jit
    def value_and_gradient(u):
        run = lambda u: linear_ssm(u, Lambda, jnp.ones_like(Lambda), C, engine=engine)[0]
        y, pull = jax.vjp(run, u)
        return y, pull(given["weight"])[0]

    return value_and_gradient(given["u"])


def _noise(stored: dict[str, np.ndarray]) -> Comparison:
    key = jax.random.wrap_key_data(jnp.array([0, 7], jnp.uint32), impl="threefry2x32")
    drawn = jax.jit(
        lambda key: uniforms(
            key,
            layer=1,
            sampler=2,
            example_ids=jnp.array([3, 90], jnp.int32),
            steps=jnp.arange(9, dtype=jnp.int32),
            features=6,
        )
    )(key)
    return Comparison("noise: bits that differ", int(np.sum(drawn != stored["noise"])), 0)


def _tiny(**fields) -> tuple[Callable, dict, jax.Array]:
    model = create_model("pspikessm", "tiny", **fields)
    rng = np.random.default_rng(3)
    inputs = jnp.asarray(rng.normal(size=(4, 64, 2)) + 0.5, jnp.float32)
    key = jax.random.key(1, impl="threefry2x32")
    variables = jax.jit(model.init)({"params": key, "spikes": key}, inputs)
    return model, variables, inputs


def _streams() -> Iterator[Comparison]:
    model, variables, inputs = _tiny()
    rngs = {"spikes": jax.random.key(2, impl="threefry2x32")}
    whole = jax.jit(lambda v, x: model.apply(v, x, capture=True, rngs=rngs))
    outputs, aux = whole(variables, inputs)
    prefill = jax.jit(
        lambda v, s, x: model.apply(v, s, x, capture=True, rngs=rngs, method="prefill")
    )
    state, spikes = model.initial_state(4), []
    for piece in jnp.split(inputs, 4, axis=1):
        state, (last, one) = prefill(variables, state, piece)
        spikes.append(one["sites"])
    differ = total = 0
    for site, record in aux["sites"].items():
        streamed = np.concatenate([one[site]["spike_array"] for one in spikes], axis=2)
        differ += int(np.sum(streamed != record["spike_array"]))
        total += streamed.size
    yield Comparison("stream: share of spikes that differ (ties)", differ / total, TIES)
    if not differ:
        yield Comparison("stream: outputs", _peak_share(last, np.asarray(outputs)), 1e-4)


def _bfloat16() -> Iterator[Comparison]:
    found = {}
    for precision in ("float32", "bfloat16"):
        model, variables, inputs = _tiny(precision=precision)
        apply = jax.jit(lambda v, x, model=model: model.apply(v, x, sampling="mean")[0])
        found[precision] = apply(variables, inputs)
    wide = found["bfloat16"].dtype == jnp.float32
    yield Comparison("bfloat16: outputs below float32", 0 if wide else 1, 0)
    # bfloat16 has 8 bits: a few roundings of 2^-9 each, averaged over steps.
    difference = _peak_share(found["bfloat16"], np.asarray(found["float32"]))
    yield Comparison("bfloat16: mean field beside float32", difference, 0.05)
