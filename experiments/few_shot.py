"""Classes session by session on frozen features of spoken digits: Mamba-FSCIL's projector.

  python -m experiments.few_shot --source-dir FOLDER_OF_DIGITS_NPZ

An S4D model learns six digits and is frozen. Its features, four means over parts of each recording,
go through the dual projector; then come two sessions of two digits with five examples each. Printed
is the accuracy over all digits so far, beside that of a projector of products alone and that of the
nearest class mean. The published benchmark needs image sets and a ResNet that are not here.
"""

import argparse
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pspike_jax
from pspike_jax.data import Split, Task, load_spoken_digits, take
from pspike_jax.functional.simplex import directions, dot_regression
from pspike_jax.objectives import Classification
from pspike_jax.training import TrainSettings, create_state, make_mesh, train_step
from pspike_jax.training.incremental import (
    class_means,
    class_sensitive,
    few_shot_sessions,
    nearest_mean,
)

BASE, WAYS, SHOTS, PARTS = 6, 2, 5, 4
WEIGHTS = {"suppress": 100.0, "suppress_novel": 1.0, "separate": 1e-3, "separate_new": 1e-3}


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


def frozen_features(task: Task, steps: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train a model on the base classes, and return its features of all splits.

    Args:
      task: spoken digits.
      steps: of training.

    Returns:
      {split: (features (n, 4, H), labels)}.
    """
    base = take(task.train, np.flatnonzero(task.train.targets < BASE))
    small = Task("base", base, None, None, Classification(BASE))
    model = pspike_jax.create_model("s4d", d_model=64, d_state=16, n_layers=2, num_outputs=BASE)
    settings = TrainSettings(steps=steps, batch_size=64)
    state = create_state(model, small, settings, make_mesh(devices=jax.devices()[:1]))
    advance, rng = jax.jit(train_step), np.random.default_rng(0)
    for _ in range(steps):
        rows = rng.choice(len(base.inputs), 64, replace=False)
        batch = {name: getattr(base, name)[rows] for name in ("inputs", "lengths", "targets")}
        state, _ = advance(state, batch)

    @jax.jit
    def pooled(inputs, lengths):
        last = model.apply(state.variables, inputs, lengths, capture=True)[1]["block_output"][-1]
        part = jnp.arange(last.shape[1])[None] * PARTS // lengths[:, None]  # beyond the end: none
        shares = (part[:, None] == jnp.arange(PARTS)[None, :, None]).astype(jnp.float32)
        total = jnp.sum(shares, axis=2, keepdims=True)
        return jnp.einsum("bpl,blh->bph", shares, last) / jnp.maximum(total, 1)

    def features(split: Split):
        pieces = [
            np.asarray(pooled(split.inputs[i : i + 64], split.lengths[i : i + 64]))
            for i in range(0, len(split.inputs), 64)
        ]
        return np.concatenate(pieces), np.asarray(split.targets)

    return {name: features(split) for name, split in task.splits().items()}


def learn(model, params, features, labels, *, steps, rate, old_rate, seed=0):
    """Fit a projector by SGD, the base branch more slowly; return its parameters."""
    new = lambda path, _: "new" in jax.tree_util.keystr(path)
    groups = jax.tree_util.tree_map_with_path(new, params)
    sgd = lambda rate: optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, 0.9))
    rule = optax.multi_transform({True: sgd(rate), False: sgd(old_rate)}, groups)

    def loss(params, x, y):
        scores, aux = model.apply({"params": params}, x, capture=True)
        total = jnp.mean(dot_regression(scores, y))
        if "new" in aux.get("parts", {}):
            total += sum(class_sensitive(aux["parts"], y < BASE, **WEIGHTS).values())
        return total

    @jax.jit
    def step(params, state, x, y):
        updates, state = rule.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state, rng = rule.init(params), np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.integers(0, len(labels), 32)
        params, state = step(params, state, features[rows], labels[rows])
    return params


def main(arguments: list[str] | None = None) -> None:
    """Print accuracies by session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source-dir", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    found = frozen_features(load_spoken_digits(source_dir=given.source_dir, seed=0), given.steps)
    (x, y), (x_test, y_test) = found["train"], found["test"]
    sessions = few_shot_sessions(y, base_classes=BASE, ways=WAYS, shots=SHOTS, seed=given.seed)
    make = functools.partial(pspike_jax.create_model, "mamba_fscil", "digits", seed=given.seed)
    models = {"mamba": make(), "plain": Plain(tuple(map(tuple, np.asarray(make().prototypes()))))}
    fit = functools.partial(learn, steps=given.steps)
    params = {}
    for name, model in models.items():
        start = nn.meta.unbox(model.init(jax.random.key(given.seed), x[:2]))["params"]
        params[name] = fit(model, start, features=x[sessions[0]], labels=y[sessions[0]],
                           rate=0.1, old_rate=0.1)
    means, classes = class_means(x[sessions[0]], y[sessions[0]])
    for number, rows in enumerate(sessions):
        if number:
            if number == 1:
                models["mamba"] = make(new_branch=True)
                drawn = models["mamba"].init(jax.random.key(given.seed), x[:2])
                params["mamba"] = nn.meta.unbox(drawn)["params"] | params["mamba"]
            more, labels = class_means(x[rows], y[rows])
            shots = np.concatenate(sessions[1 : number + 1])
            old, old_labels = class_means(x[sessions[0]], y[sessions[0]])
            means, classes = np.concatenate([means, more]), np.concatenate([classes, labels])
            data = np.concatenate([old, x[shots]]), np.concatenate([old_labels, y[shots]])
            for name, model in models.items():
                params[name] = fit(model, params[name], features=data[0], labels=data[1],
                                   rate=0.05, old_rate=0.01)
        seen = BASE + WAYS * number
        keep = y_test < seen
        line = {
            name: np.mean(np.argmax(
                model.apply({"params": params[name]}, x_test[keep])[0][:, :seen], axis=1
            ) == y_test[keep])
            for name, model in models.items()
        }
        nearest = nearest_mean(x_test[keep].mean(1), means.mean(1), classes)
        line["nearest mean"] = np.mean(nearest == y_test[keep])
        shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in line.items())
        print(f"session {number}, {seen} digits: {shown}")


if __name__ == "__main__":
    main()
