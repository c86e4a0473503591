"""Time and memory of drawing spikes: keyed noise against bulk draws, beside an SSM of that size.

  python -m benchmarks.sampling

One sampler of a layer, B 8, L 2048, H 128, forward, and forward+backward with the gradient of the
drive. Given the same uniforms, both ways have to give the same spikes and the same gradient; for
their own noise, the mean of either is held against the drive.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain, ssm_engines, timing
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH
from pspike_jax.functional import sample_spikes, uniforms

FAMILY_ERROR_Z = 6.0  # standard errors; a correct sampler is further off once in 5e8 keys


def bulk(key, drive):
    """Draw as a good first version does."""
    return plain.spikes(drive, jax.random.uniform(key, drive.shape))


def bernoulli(key, drive):
    """Draw by `jax.random.bernoulli`, straight through."""
    p = jnp.clip(drive, 0, 1)
    fired = jax.random.bernoulli(key, p).astype(drive.dtype)
    return p + jax.lax.stop_gradient(fired - p)


def one_key(key, drive):
    """Draw by `sample_spikes` from one key, without names for examples and steps."""
    return sample_spikes(drive, key)


def keyed(key, drive):
    """Draw as the models do: every element by key, layer, sampler, example and step."""
    batch, length, features = drive.shape
    noise = uniforms(
        key,
        layer=0,
        sampler=0,
        example_ids=jnp.arange(batch),
        steps=jnp.arange(length),
        features=features,
    )
    return sample_spikes(drive, noise=noise)


SAMPLERS = {"plain uniform": bulk, "plain bernoulli": bernoulli, "one key": one_key, "keyed": keyed}


def pullback(sample):
    """Return the program of spikes and the gradient of their inner product with a cotangent."""

    def run(key, drive, cotangent):
        spikes, back = jax.vjp(lambda drive: sample(key, drive), drive)
        return spikes, back(cotangent)[0]

    return run


def check(drive, cotangent, noise):
    """Raise where spikes or gradients for given noise differ, or a sampler is biased."""
    given = {
        "plain": lambda noise, drive: plain.spikes(drive, noise),
        "pspike_jax": lambda noise, drive: sample_spikes(drive, noise=noise),
    }
    programs = [
        timing.compile_program(name, pullback(f), noise, drive, cotangent)
        for name, f in given.items()
    ]
    # p + (s - p) may differ from s by one rounding.
    timing.check_agreement(programs, 1e-6)
    p = np.clip(np.asarray(drive, np.float64), 0, 1)
    error = np.sqrt(np.sum(p * (1 - p))) / p.size
    for name, sample in SAMPLERS.items():
        drawn = np.asarray(jax.jit(sample)(jax.random.key(7), drive), np.float64)
        bias = np.mean(drawn - p)
        if not abs(bias) <= FAMILY_ERROR_Z * error:
            raise ValueError(f"{name} is off by {bias:.2g}, more than {FAMILY_ERROR_Z * error:.2g}")


def measure(quick: bool) -> list[timing.Record]:
    """Time the samplers, and the SSM that would read their spikes."""
    shape = ssm_engines.Shape(2, 16, 8, 2) if quick else ssm_engines.Shape(8, 2048, 128, 8)
    rng = np.random.default_rng(0)
    size = (shape.batch, shape.length, shape.features)
    drive = jnp.asarray(rng.normal(0.3, 0.3, size), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=size), jnp.float32)
    check(drive, cotangent, jnp.asarray(rng.random(size), jnp.float32))
    key, given = jax.random.key(0), ssm_engines.arguments(shape)
    setting = {"batch": shape.batch, "L": shape.length, "H": shape.features, "N": shape.state}
    records = []
    for passes in ssm_engines.PASSES:
        wrap = pullback if passes == "forward+backward" else lambda f: lambda key, x, _: f(key, x)
        programs = [
            timing.compile_program(name, wrap(sample), key, drive, cotangent)
            for name, sample in SAMPLERS.items()
        ]
        ssm = ssm_engines.PASSES[passes](ssm_engines.by_engine("auto"))
        programs.append(timing.compile_program("linear_ssm, auto", ssm, *given))
        records += timing.measure(programs, setting=setting | {"pass": passes}, rounds=25)
    return records


def draw(records: Sequence[timing.Record]):
    """Plot the times as bars."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    for ax, passes in zip(fig.subplots(1, 2, sharey=True), ssm_engines.PASSES):
        rows = timing.select(records, **{"pass": passes})
        timing.bars(ax, rows, [PALETTE[0] if r["contender"] == "keyed" else GREY for r in rows])
        ax.set_title(f"{passes} (ms)", loc="left")
    return fig


if __name__ == "__main__":
    timing.main("sampling", measure, draw)
