"""Generated sensors: damped oscillations in noise, for classes or for numbers along the way."""

import numpy as np

from pspike_jax.data.arrays import from_arrays
from pspike_jax.data.batches import Task
from pspike_jax.data.ppg_dalia import spread
from pspike_jax.data.split import Split
from pspike_jax.objectives import StepRegression


def generate_oscillations(
    *, length: int, channels: int, classes: int, examples: int, seed: int, every: int = 0
) -> Task:
    """Draw series whose class is a frequency, or of which a frequency is asked along the way.

    Args:
      length: L.
      channels: F, each the same oscillation at a phase of its own, in noise.
      classes: frequencies, from 2 / L to 1 / 8 of a step.
      examples: of all splits; 70, 15 and 15 %.
      seed: not negative.
      every: 0 for classes; else steps from one target to the next, the logarithm of the frequency.

    Returns:
      Task of classes, or of step regression with NaN between the targets.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % classes
    frequencies = np.geomspace(2 / length, 1 / 8, classes)[labels]
    time = np.arange(length)
    phase = rng.uniform(0, 2 * np.pi, (examples, 1, channels))
    fall = np.exp(-time / length)[None, :, None]
    angle = 2 * np.pi * frequencies[:, None, None] * time[None, :, None] + phase
    inputs = fall * np.sin(angle) + 0.3 * rng.normal(size=angle.shape)
    inputs = inputs.astype(np.float32)
    if not every:
        shares = {"validation": 0.15, "test": 0.15}
        return from_arrays(inputs, labels, seed=seed, name="generated oscillations", **shares)
    targets = np.repeat(np.log(frequencies)[:, None], length // every, axis=1)
    whole = spread(inputs, targets, every, False, "oscillations")
    order = rng.permutation(examples)
    held = max(1, round(0.15 * examples))
    rows = {"test": order[:held], "validation": order[held : 2 * held], "train": order[2 * held :]}
    parts = {
        name: Split(*(None if array is None else array[chosen] for array in whole))
        for name, chosen in rows.items()
    }
    return Task("generated oscillations", **parts, objective=StepRegression(1))
