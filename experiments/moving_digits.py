"""Train STC on films of moving digits and draw what it predicts.

  python -m experiments.moving_digits --workdir=runs/moving_digits

Films have 20 frames, of which the model is shown 10. As in the published program, the loss is the
mean squared error over all next frames, and the share of later inputs that are true frames falls
from 1 to 0 over half of training (scheduled sampling). Written are errors.json, whose control is
the last frame repeated, and film.png. No figure is published for these films.
With --steps=2 --films=8 --widths=16 it runs in seconds.
"""

import argparse
import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pspike_jax import create_model
from pspike_jax.data.moving_digits import load_moving_digits
from pspike_jax.models.stc import STC, frame_error

GIVEN, BATCH = 10, 16


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--films", type=int, default=2000, help="for training")
    parser.add_argument("--cell", default="lif", choices=("lif", "plif", "lmh"))
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 32])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def train_step(model: STC, optimizer, state, films, key, chance):
    """Take one step: (parameters, optimizer's state), films, and the chance of a true frame."""
    params, opt_state = state
    shape = (films.shape[0], films.shape[1] - 1, 1, 1, 1)
    drawn = jax.random.bernoulli(key, chance, shape)
    first = (jnp.arange(shape[1], dtype=jnp.int32) < GIVEN)[None, :, None, None, None]
    share = (drawn | first).astype(jnp.float32)

    def loss(params):
        predictions, _ = model.apply({"params": params}, films, share=share)
        return frame_error(predictions, films)

    error, bar = jax.value_and_grad(loss)(params)
    updates, opt_state = optimizer.update(bar, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), error


def draw(path: pathlib.Path, film: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the later frames of a film above those that were predicted."""
    from matplotlib.figure import Figure

    later, shown = film[GIVEN:, ..., 0], predicted[GIVEN - 1 :, ..., 0]
    figure = Figure(figsize=(len(later), 2.2))
    axes = figure.subplots(2, len(later))
    for row, frames, name in ((0, later, "film"), (1, shown, "predicted")):
        for axis, frame in zip(axes[row], frames, strict=True):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Train, measure, draw."""
    args = parse()
    args.workdir.mkdir(parents=True, exist_ok=True)
    films = load_moving_digits(seed=args.seed, counts=(args.films, 1, 64))
    model = create_model("stc", "moving_digits", widths=tuple(args.widths), cell=args.cell)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(args.seed), films.train[:1]))[
        "params"
    ]
    schedule = optax.cosine_decay_schedule(2e-3, max(args.steps, 1))
    optimizer = optax.adam(schedule)
    state = params, jax.jit(optimizer.init)(params)
    step = jax.jit(functools.partial(train_step, model, optimizer))
    rng = np.random.default_rng(args.seed)
    for number in range(args.steps):
        rows = rng.integers(len(films.train), size=BATCH)
        chance = max(0.0, 1 - 2 * number / args.steps)
        key = jax.random.fold_in(jax.random.key(args.seed), number)
        state, error = step(state, films.train[rows], key, chance)
        if number % 100 == 0 or number == args.steps - 1:
            print(f"step {number}: error {float(error):.5f}", flush=True)
    predict = jax.jit(functools.partial(model.apply, given=GIVEN))
    predictions, aux = predict({"params": state[0]}, films.test)
    repeated = np.repeat(films.test[:, GIVEN - 1 : GIVEN], films.test.shape[1] - 1, axis=1)
    records = aux["sites"].values()
    spikes = sum(float(np.sum(r["spikes"])) for r in records)
    places = sum(float(np.sum(np.asarray(r["steps"]) * r["neurons"])) for r in records)
    measured = {
        "predicted frames, mean squared error": float(frame_error(predictions, films.test, GIVEN)),
        "last frame repeated, mean squared error": float(frame_error(repeated, films.test, GIVEN)),
        "spikes a neuron and step": spikes / places,
        "steps": args.steps,
        "seed": args.seed,
    }
    (args.workdir / "errors.json").write_text(json.dumps(measured, indent=2) + "\n")
    draw(args.workdir / "film.png", films.test[0], np.asarray(predictions[0]))
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
