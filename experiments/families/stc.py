"""STC on films of moving digits: the error of predicted frames, and the frames.

The model sees the first frames of a film and goes on by itself. Its rivals are the last frame that
it was shown, repeated, the mean of training frames, and black.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.configs import stc_moving_digits
from experiments.families import kept, mean_and_spread, of_name, table
from pspike_jax import create_model
from pspike_jax.analysis import plots
from pspike_jax.analysis.activity import summarize
from pspike_jax.data.moving_digits import Films, load_moving_digits
from pspike_jax.models.stc import STC, frame_error

CAPTION = (
    "Two test films behind the frames that the model was shown: the film, what it predicts, and "
    "the error of each frame beside that of repeating the last one"
)
CELLS, SEEDS, SHOWN = ("lif",), (0, 1), 2


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a run for each cell and seed."""
    found = {}
    for cell in CELLS:
        for seed in SEEDS:
            config = stc_moving_digits.get_config("smoke" if asked.smoke else None)
            config.model.cell, config.training.seed = cell, seed
            found[f"{cell}_{seed}"] = functools.partial(run, config.to_dict())
    return found


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train, and measure on test films."""
    films, given = load_moving_digits(**config["task"]), config["training"]["given"]
    model = create_model(**config["model"])
    params = train(model, films, **config["training"])
    predict = jax.jit(functools.partial(model.apply, given=given))
    predictions, aux = predict({"params": params}, films.test)
    later = films.test[:, given:]
    rivals = {
        "the last frame": np.broadcast_to(films.test[:, given - 1 : given], later.shape),
        "the mean training frame": np.broadcast_to(films.train.mean((0, 1)), later.shape),
        "black": np.zeros_like(later),
    }
    mean_squared = lambda frames: float(np.mean((frames - later) ** 2))
    told = np.asarray(predictions)[:, given - 1 :]
    by_frame = lambda frames: kept(np.mean((frames - later) ** 2, axis=(0, 2, 3, 4)))
    return {
        "config": config,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "error": float(frame_error(predictions, films.test, given)),
        "rivals": {name: mean_squared(frames) for name, frames in rivals.items()},
        "by_frame": {"STC": by_frame(told), "the last frame": by_frame(rivals["the last frame"])},
        "firing_rates": {
            site: found.firing_rate.tolist() for site, found in summarize(aux["sites"]).items()
        },
        "films": packed(later[:SHOWN]), "predicted": packed(told[:SHOWN]),
    }


def train(
    model: STC, films: Films, *, steps: int, batch_size: int, learning_rate: float, given: int,
    seed: int,
) -> Any:
    """Return parameters, learnt with scheduled sampling."""
    drawn = jax.jit(model.init)(jax.random.key(seed), films.train[:1])
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    params = nn.meta.unbox(drawn)["params"]
    state = params, jax.jit(optimizer.init)(params)
    step = jax.jit(functools.partial(train_step, model, optimizer, given))
    rng = np.random.default_rng(seed)
    for number in range(steps):
        rows = rng.integers(len(films.train), size=batch_size)
        chance = max(0.0, 1 - 2 * number / steps)
        key = jax.random.fold_in(jax.random.key(seed), number)
        state, error = step(state, films.train[rows], key, chance)
        if number % 50 == 0 or number == steps - 1:
            print(f"step {number}: error {float(error):.5f}", flush=True)
    return state[0]


def train_step(model: STC, optimizer, given: int, state, films, key, chance):
    """Take one step: (parameters, optimizer's state), films, and the chance of a true frame."""
    params, opt_state = state
    shape = (films.shape[0], films.shape[1] - 1, 1, 1, 1)
    drawn = jax.random.bernoulli(key, chance, shape)
    first = (jnp.arange(shape[1], dtype=jnp.int32) < given)[None, :, None, None, None]
    share = (drawn | first).astype(jnp.float32)

    def loss(params):
        predictions, _ = model.apply({"params": params}, films, share=share)
        return frame_error(predictions, films)

    error, bar = jax.value_and_grad(loss)(params)
    updates, opt_state = optimizer.update(bar, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), error


def packed(films: np.ndarray) -> list[list[str]]:
    """Write frames (n, T, H, W, 1) in [0, 1] as text, a hexadecimal digit a pixel."""
    levels = np.rint(15 * np.clip(films[..., 0], 0, 1)).astype(int)
    line = lambda row: "".join(f"{level:x}" for level in row)
    return [[" ".join(map(line, frame)) for frame in film] for film in levels]


def unpacked(frame: str) -> np.ndarray:
    """Return a frame (H, W) that `packed` wrote."""
    return np.array([[int(level, 16) for level in row] for row in frame.split()]) / 15


def page(rows: dict[str, Any]) -> str:
    """Write errors beside those of the rivals."""
    first = rows[f"{CELLS[0]}_{SEEDS[0]}"]
    task, training = first["config"]["task"], first["config"]["training"]
    widths = " and ".join(map(str, first["config"]["model"]["widths"]))
    lines = []
    for cell in CELLS:
        found = of_name(rows, cell)
        rate = np.mean([rate for row in found for rate in row["firing_rates"].values()])
        lines.append((
            f"STC, `{cell}`", mean_and_spread([row["error"] for row in found], ".4f"),
            f"{100 * rate:.1f} %",
        ))
    lines += [(name, f"{error:.4f}", "") for name, error in first["rivals"].items()]
    return (
        f"{task['digits']} digit{'s' * (task['digits'] > 1)} on {task['size']} x {task['size']} "
        f"pixels, {task['frames']} frames of which {training['given']} are shown; "
        f"{task['counts'][0]:,} training films; {widths} features, {first['parameters']:,} "
        f"parameters, {training['steps']:,} steps of {training['batch_size']} films. Mean squared "
        f"error of a pixel over the {task['frames'] - training['given']} predicted frames of "
        f"{task['counts'][2]} test films, whose digits occur in no training film; mean and "
        f"standard deviation over {len(of_name(rows, CELLS[0]))} seeds:\n\n"
        + table(("prediction", "mean squared error", "firing rate"), *lines)
    )


def draw(rows: dict[str, Any]):
    """Draw later frames of films above those that were predicted, and errors by frame."""
    from matplotlib.figure import Figure

    row = rows[f"{CELLS[0]}_{SEEDS[0]}"]
    given, count = row["config"]["training"]["given"], len(row["films"][0])
    figure = Figure(figsize=(plots.WIDTH, 6.0), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2, 1))
    axes = upper.subplots(2 * SHOWN, count)
    for film in range(SHOWN):
        for part, name in enumerate(("films", "predicted")):
            line = axes[2 * film + part]
            for number, (axis, frame) in enumerate(zip(line, row[name][film])):
                axis.imshow(unpacked(frame), cmap="gray", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[])
                if film == part == 0:
                    axis.set_title(f"frame {given + number + 1}", fontsize=8)
            line[0].set_ylabel("film" if name == "films" else "predicted", fontsize=9)
    axis = lower.subplots()
    frames = np.arange(given + 1, given + count + 1)
    for (name, errors), colour in zip(row["by_frame"].items(), plots.PALETTE):
        axis.plot(frames, errors, "o-", color=colour, markersize=4, label=name)
    axis.set(xlabel="frame", ylabel="mean squared error", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    return figure
