"""Classes session by session on frozen features of spoken digits: Mamba-FSCIL's projector.

An S4D model learns six digits and is frozen. Its features, four means over parts of each recording,
go through the dual projector; then come two sessions of two digits with five examples each. What is
kept is the accuracy over all digits so far, beside those of a projector of products and of the
nearest class mean. The published benchmark needs image sets and a ResNet that are not here.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pspike_jax
from experiments.configs import mamba_fscil_digits
from experiments.families import SEEDS, mean_and_spread, table
from pspike_jax.analysis import plots
from pspike_jax.analysis.canvas import grid
from pspike_jax.data import Split, Task, load_spoken_digits, take
from pspike_jax.functional.simplex import directions, dot_regression
from pspike_jax.objectives import Classification
from pspike_jax.training import TrainSettings, create_state, make_mesh, train_step
from pspike_jax.recipes.incremental import (
    class_means,
    class_sensitive,
    few_shot_sessions,
    nearest_mean,
)

CAPTION = (
    "Accuracy over all digits so far, and over the old and the new ones among them, session by "
    "session, of the projector and its rivals"
)
WORDS = {
    "mamba": "dual selective projector", "plain": "products, at its new branch's rate",
    "plain slow": "products, at its old branch's rate", "nearest mean": "nearest class mean",
}
PARTS = 4  # tokens: means over parts of a recording


class Plain(nn.Module):
    """The rival: products at the mean of the tokens, and the same prototypes.

    Attributes:
      prototypes: (d, K), as a tuple of tuples.
    """

    prototypes: tuple

    @nn.compact
    def __call__(self, x: jax.Array, **_) -> tuple[jax.Array, dict]:
        """Return products with prototypes, and no parts."""
        E = jnp.asarray(self.prototypes, jnp.float32)
        y = nn.Dense(2 * len(self.prototypes))(jnp.mean(x, axis=1))
        y = nn.Dense(len(self.prototypes))(nn.leaky_relu(y, 0.1))
        return directions(y) @ E, {}


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a run for each seed of sessions and projectors; the frozen features are the same."""
    if asked.source_dir is None:
        raise SystemExit("error: mamba_fscil needs --source_dir, the folder of digits.npz")
    config = mamba_fscil_digits.get_config("smoke" if asked.smoke else None).to_dict()
    features = functools.cache(lambda: frozen_features(
        load_spoken_digits(source_dir=asked.source_dir, seed=0),
        config["sessions"]["base_classes"], **config["backbone"],
    ))
    return {
        f"sessions_{seed}": lambda seed=seed: sessions(features(), config, seed) for seed in SEEDS
    }


def frozen_features(
    task: Task, base: int, *, model: dict[str, Any], steps: int, batch_size: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train a model on the base classes, and return its features of all splits.

    Args:
      task: spoken digits.
      base: number of base classes.
      model: fields of the model.
      steps, batch_size, seed: of training.

    Returns:
      {split: (features (n, 4, H), labels)}.
    """
    seen = take(task.train, np.flatnonzero(task.train.targets < base))
    small = Task("base", seen, None, None, Classification(base))
    net = pspike_jax.create_model(**model, num_outputs=base)
    settings = TrainSettings(steps=steps, batch_size=batch_size, seed=seed)
    state = create_state(net, small, settings, make_mesh(devices=jax.devices()[:1]))
    advance, rng = jax.jit(train_step), np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.choice(len(seen.inputs), batch_size, replace=False)
        batch = {name: getattr(seen, name)[rows] for name in ("inputs", "lengths", "targets")}
        state, _ = advance(state, batch)

    @jax.jit
    def pooled(inputs, lengths):
        last = net.apply(state.variables, inputs, lengths, capture=True)[1]["block_output"][-1]
        part = jnp.arange(last.shape[1])[None] * PARTS // lengths[:, None]  # beyond the end: none
        shares = (part[:, None] == jnp.arange(PARTS)[None, :, None]).astype(jnp.float32)
        total = jnp.sum(shares, axis=2, keepdims=True)
        return jnp.einsum("bpl,blh->bph", shares, last) / jnp.maximum(total, 1)

    def features(split: Split):
        number = len(split.lengths)
        rows = np.resize(np.arange(number), (-(-number // 64), 64))  # batches of one size
        pieces = [np.asarray(pooled(split.inputs[i], split.lengths[i])) for i in rows]
        return np.concatenate(pieces)[:number], np.asarray(split.targets)

    return {name: features(split) for name, split in task.splits().items()}


def sessions(found: dict[str, Any], config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Learn session by session; return accuracies over all, old and new classes after each."""
    (x, y), (x_test, y_test) = found["train"], found["test"]
    base, ways = config["sessions"]["base_classes"], config["sessions"]["ways"]
    chosen = few_shot_sessions(y, **config["sessions"], seed=seed)
    make = functools.partial(pspike_jax.create_model, **config["model"])
    plain = Plain(tuple(map(tuple, np.asarray(make().prototypes()))))
    models = {"mamba": make(), "plain": plain, "plain slow": plain}
    begin = lambda model: nn.meta.unbox(jax.jit(model.init)(jax.random.key(seed), x[:2]))["params"]
    params = {name: begin(model) for name, model in models.items()}
    rates, fit = config["training"], functools.partial(learn, config=config, seed=seed)
    means, classes = old_means, old_classes = class_means(x[chosen[0]], y[chosen[0]])
    lines = []
    for number, rows in enumerate(chosen):
        data, new, old = (x[rows], y[rows]), rates["base_rate"], rates["base_rate"]
        if number:
            if number == 1:
                models["mamba"] = make(new_branch=True)
                params["mamba"] = begin(models["mamba"]) | params["mamba"]
            more, labels = class_means(x[rows], y[rows])
            means, classes = np.concatenate([means, more]), np.concatenate([classes, labels])
            shots = np.concatenate(chosen[1 : number + 1])
            data = np.concatenate([old_means, x[shots]]), np.concatenate([old_classes, y[shots]])
            new, old = rates["new_rate"], rates["old_rate"]
        for name, model in models.items():
            speed = new, new if name == "plain" else old
            params[name] = fit(model, params[name], *data, *speed)
        count = base + ways * number
        keep = y_test < count
        told = {
            name: np.argmax(scores_of(model)(params[name], x_test)[keep, :count], axis=1)
            for name, model in models.items()
        } | {"nearest mean": nearest_mean(x_test[keep].mean(1), means.mean(1), classes)}
        lines.append({"classes": count} | {
            name: accuracies(one, y_test[keep], base) for name, one in told.items()
        })
    return {"config": config, "sessions": lines}


def accuracies(told: np.ndarray, labels: np.ndarray, base: int) -> dict[str, float | None]:
    """Return the accuracy over all, base and later classes; None where there are none."""
    right = np.asarray(told) == labels
    parts = {"all": labels >= 0, "base": labels < base, "new": labels >= base}
    return {name: float(right[part].mean()) if part.any() else None for name, part in parts.items()}


def learn(model, params, features, labels, new_rate, old_rate, *, config, seed):
    """Fit a projector by SGD, what was there before the new branch at its own rate; return it."""
    settings = config["training"]
    is_new = lambda path, _: "new" in jax.tree_util.keystr(path)
    rates = jax.tree.map(
        lambda new: np.float32(new_rate if new else old_rate),
        jax.tree_util.tree_map_with_path(is_new, params),
    )
    step = make_step(model, config["sessions"]["base_classes"], settings["weight_decay"],
                     settings["momentum"], tuple(config["weights"].items()))
    speed, rng = jax.tree.map(jnp.zeros_like, params), np.random.default_rng(seed)
    for _ in range(settings["steps"]):
        rows = rng.integers(0, len(labels), settings["batch_size"])
        params, speed = step(params, speed, rates, features[rows], labels[rows])
    return params


@functools.cache
def scores_of(model):
    """Return a compiled function of parameters and features."""
    return jax.jit(lambda params, x: model.apply({"params": params}, x)[0])


@functools.cache
def make_step(model, base: int, decay: float, momentum: float, weights: tuple):
    """Return a compiled step of SGD whose rates are a tree; one for all sessions and seeds."""

    def loss(params, x, y):
        scores, aux = model.apply({"params": params}, x, capture=True)
        total = jnp.mean(dot_regression(scores, y))
        if "new" in aux.get("parts", {}):
            total += sum(class_sensitive(aux["parts"], y < base, **dict(weights)).values())
        return total

    @jax.jit
    def step(params, speed, rates, x, y):
        slope = jax.tree.map(lambda g, p: g + decay * p, jax.grad(loss)(params, x, y), params)
        speed = jax.tree.map(lambda v, g: momentum * v + g, speed, slope)
        return jax.tree.map(lambda p, r, v: p - r * v, params, rates, speed), speed

    return step


def page(rows: dict[str, Any]) -> str:
    """Write accuracies by session."""
    first = next(iter(rows.values()))
    config, lines = first["config"], []
    for number, session in enumerate(first["sessions"]):
        cells = [number, session["classes"]]
        for name in WORDS:
            found = [row["sessions"][number][name] for row in rows.values()]
            cell = mean_and_spread([one["all"] for one in found], ".1f", 100)
            if number:
                halves = (100 * np.mean([one[part] for one in found]) for part in ("base", "new"))
                cell += " ({:.0f}, {:.0f})".format(*halves)
            cells.append(cell)
        lines.append(cells)
    plan, backbone = config["sessions"], config["backbone"]
    return (
        f"Spoken digits: an `{backbone['model']['name']}` of {backbone['model']['d_model']} "
        f"features learns {plan['base_classes']} of them in {backbone['steps']} steps and is "
        f"frozen; {PARTS} means over parts of each recording are the tokens; then sessions of "
        f"{plan['ways']} digits with {plan['shots']} examples each, {config['training']['steps']} "
        "steps of SGD a session, old digits by their class means. Test accuracy over all digits so "
        f"far, %, mean and standard deviation over {len(rows)} seeds of sessions and projectors on "
        "one frozen model; in brackets that of old and of new digits:\n\n"
        + table(("session", "digits", *WORDS.values()), *lines)
    )


def draw(rows: dict[str, Any]):
    """Draw accuracies over all digits by session, then over old and over new ones."""
    figure, axes = grid(1, 3, height=3.4, sharey=True)
    first = next(iter(rows.values()))["sessions"]
    parts = {"all": "all digits so far", "base": "the first digits", "new": "digits that came"}
    for axis, (part, title) in zip(axes[0], parts.items()):
        for shift, (name, words) in enumerate(WORDS.items()):
            numbers = [n for n, one in enumerate(first) if one[name][part] is not None]
            found = 100 * np.array([
                [row["sessions"][n][name][part] for row in rows.values()] for n in numbers
            ])
            axis.errorbar(np.array(numbers) + 0.05 * (shift - 1.5), found.mean(1), found.std(1),
                          color=plots.PALETTE[shift], marker="os^D"[shift], markersize=4,
                          label=words)
        axis.set_title(title, loc="left")
        axis.set(xlabel="session", xticks=range(len(first)))
    axes[0, 0].set(ylabel="test accuracy (%)", ylim=(-3, 103))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure
