"""What `experiments.compare` compares: every classifier at one size, and how it is built.

Nothing here is chosen by hand for a model unless `OWN` says why: widths are searched for, rates
are chosen by validation.
"""

import functools
import pathlib
from typing import Any

import jax
import numpy as np

from pspike_jax.data import TASKS, Task
from pspike_jax.models import create_model, describe_model, list_models
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.training import OptimizerSettings, TrainSettings

SIZE, TOLERANCE = 20_000, 0.1  # parameters, and the share by which a model may miss them
WIDEST = 256
BATCH, EVALUATED = 32, 128
# Updates of a run: 12, 50 and 6 epochs.
STEPS = {"digits": 468, "japanese_vowels": 300, "spoken_digits": 402}
# A rate is chosen on one data set, in runs of three epochs with a seed of their own.
TUNED_ON, TUNING_STEPS, TUNING_SEED = "digits", 117, 100
RATES = (3e-3, 1e-2, 3e-2)
VALIDATION_DRAWS, TEST_DRAWS = 4, 4  # of the noise

# Where a model has such a field. Time constants of 2 to 50 steps, for sequences of 7 to 92.
FIELDS: dict[str, Any] = {
    "n_layers": 2, "d_state": 16, "norm": "batch", "causal": True, "dropout": 0.1,
    "dt_min": 0.02, "dt_max": 0.5,
}
_ONE_STATE = {"d_state": 64}  # for all features, where others have 16 for each
OWN: dict[str, dict[str, Any]] = {
    "dlinoss": _ONE_STATE,
    "linoss": _ONE_STATE,
    "s5": _ONE_STATE,
    # Windows of 8 events would leave nothing of an utterance of 7 frames.
    "event_ssm": _ONE_STATE | {"stride": 1},
    # The gated map behind the mixer would alone be larger than the whole model.
    "gla": {"heads": 2, "d_mlp": 32},
    # A head of 64 channels does not fit: heads must divide twice the width.
    "mamba2": {"head_features": 8},
    "psm": {"heads": 2, "chunk": 8},
    # Solved to rounding, an update takes seconds.
    "pendulum": {"preset": "euler"},
    # First presets are of tasks of tokens; these are of sequences of pixels.
    "prf": {"preset": "psmnist"},
    "s5rf": {"preset": "psmnist"},
    # Distances beyond the longest sequence would be parameters without a use.
    "seqboat": {"max_positions": 96},
}
# Spikes on top of mixers: {row: (model, fields)}, each with the dense model of the same mixer.
ON_MIXERS: dict[str, tuple[str, dict[str, Any]]] = {
    "linoss + probabilistic": ("pspikessm", _ONE_STATE | {"parametrization": "oscillator"}),
    "s5 + lif": ("lif_ssm", _ONE_STATE | {"parametrization": "s5"}),
    "mamba + probabilistic": ("pspikessm", {"parametrization": "selective"}),
    "gla + lif": ("lif_ssm", {"parametrization": "gated"}),
}
# {spiking row: the dense one that it is set beside}.
TWINS = {name: name.partition(" ")[0] for name in ON_MIXERS} | {
    "pspikessm": "s4d", "lif_ssm": "s4d", "spikingssm": "s4d", "binary_s4d": "s4d",
}


def rows() -> tuple[str, ...]:
    """Return the names of all rows: the classifiers of the zoo, and `ON_MIXERS`."""
    return (*list_models(kind="classifier"), *ON_MIXERS)


@functools.cache
def make_task(name: str, data_dir: str) -> Task:
    """Read a data set; the split is one for all runs.

    Args:
      name: a key of `STEPS`.
      data_dir: folder of a folder of the published files of each set, named after it.

    Returns:
      The task.
    """
    files = {} if name == "digits" else {"source_dir": str(pathlib.Path(data_dir) / name)}
    return TASKS[name](**files, seed=0)


def own_fields(row: str) -> dict[str, Any]:
    """Return a row's model by name, and the fields that are its alone."""
    name, own = ON_MIXERS.get(row, (row, OWN.get(row, {})))
    return {"name": name} | own


def fields_of(row: str, length: int) -> dict[str, Any]:
    """Return what `create_model` is given for a row, but for its width and the task's fields.

    Args:
      row: of the comparison.
      length: of the longest example.

    Returns:
      "name" of the model, maybe "preset", and fields.
    """
    own = own_fields(row)
    known = {field.name: field for field in describe_model(own["name"]).fields}
    fits = lambda key, value: key in known and value in (known[key].choices or (value,))
    fields = {key: value for key, value in FIELDS.items() if fits(key, value)}
    if "l_max" in known:
        fields["l_max"] = -(-length // 8) * 8  # positions are learnt, in chunks of 8
    return fields | own


def make_model(row: str, task: Task, width: int) -> SequenceModel:
    """Build a row's model for a task.

    Args:
      row: of the comparison.
      task: that it learns.
      width: features of each layer.

    Returns:
      The model.

    Raises:
      TypeError, ValueError: no such model has this width, or takes this task.
    """
    fields = fields_of(row, task.train.inputs.shape[1])
    return create_model(**fields | task.model_fields | size_of(row, width))


def size_of(row: str, width: int) -> dict[str, Any]:
    """Return the field, and its value, that gives each layer of a row's model its width."""
    known = {field.name for field in describe_model(own_fields(row)["name"]).fields}
    return {"d_model": width} if "d_model" in known else {"widths": (width, width)}


def count_parameters(model: SequenceModel, task: Task) -> int:
    """Return the number of a model's parameters; nothing is computed."""
    one = task.train.inputs[:1]
    rngs = {name: jax.random.key(0) for name in ("params", "spikes", "dropout")}
    inputs = jax.ShapeDtypeStruct(one.shape, np.float32)
    params = jax.eval_shape(model.init, rngs, inputs)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def find_width(row: str, task: Task) -> tuple[int, int]:
    """Find the width at which a row's model has nearly `SIZE` parameters for a task.

    Args:
      row: of the comparison.
      task: that it learns.

    Returns:
      The width, and the number of parameters.

    Raises:
      ValueError: no width that the model takes is near enough, or it does not take the task.
    """
    refused: list[Exception] = []

    def takes(width):
        try:
            make_model(row, task, width)
        except (TypeError, ValueError) as error:
            refused.append(error)
            return False
        return True

    widths = [width for width in range(4, WIDEST + 1) if takes(width)]
    if not widths:
        raise ValueError(str(refused[-1]))
    size = functools.cache(lambda width: count_parameters(make_model(row, task, width), task))
    low, high = 0, len(widths) - 1
    while high - low > 1:  # sizes grow with the width, nearly by its square: few are asked for
        below, above = (size(widths[end]) ** 0.5 for end in (low, high))
        guess = low + round((SIZE**0.5 - below) / (above - below) * (high - low))
        guess = min(max(guess, low + 1), high - 1)
        low, high = (guess, high) if size(widths[guess]) < SIZE else (low, guess)
    width = min((widths[low], widths[high]), key=lambda one: abs(size(one) - SIZE))
    if abs(size(width) - SIZE) > TOLERANCE * SIZE:
        raise ValueError(f"{row} has {size(width):,} parameters at width {width}, not {SIZE:,}")
    return width, size(width)


def make_settings(steps: int, rate: float, seed: int) -> TrainSettings:
    """Return the settings of a run, which validates after its last step alone."""
    optimizer = OptimizerSettings(
        learning_rate=rate, weight_decay=0.0, schedule="cosine", warmup_steps=steps // 20
    )
    return TrainSettings(
        steps=steps, batch_size=BATCH, seed=seed, optimizer=optimizer, log_every=steps,
        eval_every=steps, checkpoint_every=steps, keep=1, eval_batch_size=EVALUATED,
        validation_draws=VALIDATION_DRAWS,
    )
