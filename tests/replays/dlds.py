"""dLDS: coefficients, operator steps, and states behind observations, in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from recordings import meta_of, under

from pspike_jax.functional import dlds, smoother


def replay(arrays):
    with jax.enable_x64(True):
        found = {key: np.asarray(value) for key, value in replay_wide(arrays).items()}
    return found


def trials(arrays, prefix):
    """Trials as rows of time, padded to one length, and which of their steps count."""
    found = under(arrays, prefix)
    rows = [found[str(i)].T for i in range(len(found))]
    return rows, [len(row) for row in rows]


def padded(rows, length):
    return jnp.stack([jnp.pad(row, ((0, length - len(row)), (0, 0))) for row in rows])


def replay_wide(arrays):
    meta, operators = meta_of(arrays), jnp.asarray(arrays["operators"])
    states, lengths = trials(arrays, "data/")
    results = {}
    for solver, smooth in {"inv": 0.0, "inv_smooth": number(meta["solvers"]["inv_smooth"])}.items():
        found = [dlds.infer_coefficients(operators, x, smooth=smooth) for x in states]
        results |= named(solver, operators, found, states, meta)
    eps = number(meta["solvers"]["fista"])
    # With more operators than states the optimum is flat, and no solver's choice is the other's.
    alone = len(operators) <= states[0].shape[1]
    for i, x in enumerate(states if alone else ()):
        settings = {"solver": "fista", "penalty": eps, "iterations": 3000}
        results[f"coefficients/fista/{i}"] = dlds.infer_coefficients(operators, x, **settings).T
    given, _ = trials(arrays, "coefficients/spgl1/")
    spgl1 = named("spgl1", operators, given, states, meta)
    return results | spgl1 | latent(arrays, meta)


def number(text):
    return float(re.search(r"\d+(\.\d+)?", text)[0])


def named(solver, operators, coefficients, states, meta):
    results = {f"coefficients/{solver}/{i}": c.T for i, c in enumerate(coefficients)}
    step = direction(operators, coefficients, states)
    first = dlds.predict(operators, coefficients[0], states[0][:-1])
    return results | {
        f"error/{solver}": error(operators, coefficients, states),
        f"gradient/{solver}": step,
        f"updated/{solver}": dlds.normalise(operators + meta["step"] * step),
        f"reconstruction/{solver}": jnp.concatenate([states[0][:1], first]).T,
    }


def direction(operators, coefficients, states):
    length = max(map(len, states))
    mask = jnp.arange(length - 1)[None] < jnp.asarray([len(x) - 1 for x in states])[:, None]
    return dlds.operator_step(
        operators, padded(coefficients, length - 1), padded(states, length), mask
    )


def error(operators, coefficients, states):
    left = [dlds.residuals(operators, c, x) for c, x in zip(coefficients, states)]
    return jnp.mean(jnp.sum(jnp.concatenate(left) ** 2, axis=1))


def latent(arrays, meta):
    settings, operators = meta["latent_settings"], jnp.asarray(arrays["latent/operators"])
    observed, _ = trials(arrays, "observed/")
    coefficients, _ = trials(arrays, "latent/coefficients/")
    readout = jnp.asarray(arrays["latent/map"])
    results, states = {}, []
    for i, (y, c) in enumerate(zip(observed, coefficients)):
        states.append(smoother.smooth_states(
            jnp.asarray(y), readout, jnp.einsum("tm,mij->tij", c, operators),
            dynamics_weight=settings["lambda_dyn"], ridge=settings["l2_reg"],
        ))
        results[f"latent/states/{i}"] = states[-1].T
    found = [dlds.infer_coefficients(operators, x) for x in states]
    results |= {f"latent/new_coefficients/{i}": c.T for i, c in enumerate(found)}
    rows = jnp.concatenate(observed), jnp.concatenate(states)
    step = direction(operators, found, states)
    return results | {
        "latent/new_map": smoother.fit_readout(*rows),
        "latent/new_map_normalised": smoother.fit_readout(*rows, unit=True),
        "latent/gradient": step,
        "latent/updated": dlds.normalise(operators + meta["step"] * step),
    }


SYSTEMS = {"dLDS": replay}
