"""PPG-DaLiA (Reiss et al. 2019): heart rate from a wrist's light and motion, as arrays.

The set is published as pickles, which are not opened here: they may hold code. Whoever has it
writes one archive of plain arrays, as `load_ppg_dalia` says.
"""

import pathlib

import numpy as np

from pspike_jax.data.archives import read_npz
from pspike_jax.data.batches import Task
from pspike_jax.data.split import Split
from pspike_jax.data.untrusted import check_link
from pspike_jax.objectives import StepRegression

FILE = "ppg_dalia.npz"
PARTS = ("train", "validation", "test")


def load_ppg_dalia(*, source_dir: str, every: int = 128, time_channel: bool = True) -> Task:
    """Read windows of sensors, with a number at every 128th step.

    Args:
      source_dir: folder of ppg_dalia.npz, with arrays train_inputs (n, L, F) and train_targets
        (n, L // 128) or (n, L // 128, K), and the same of validation and test. Which subjects are
        in which part is the caller's; LinOSS takes L = 49,920 and F = 6.
      every: steps from one target to the next; LinOSS has 128.
      time_channel: a further channel that rises from 0 at the first step towards 1.

    Returns:
      Task of step regression; targets (n, L, K) float32, NaN where there is none, so at all steps
      but 127, 255, ...

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it lacks an array, or they do not fit together.
    """
    folder = pathlib.Path(source_dir).expanduser()
    path = check_link(folder, folder / FILE)
    arrays, splits = read_npz(path, most=1 << 34), {}
    names = [f"{part}_{what}" for part in PARTS for what in ("inputs", "targets")]
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    for part in PARTS:
        inputs, targets = arrays[f"{part}_inputs"], arrays[f"{part}_targets"]
        splits[part] = spread(inputs, targets, every, time_channel, f"{path}: {part}")
    sizes = {split.targets.shape[-1] for split in splits.values()}
    if len(sizes) > 1:
        raise ValueError(f"{path}: targets of {sorted(sizes)} numbers, expected one size")
    return Task("ppg_dalia", **splits, objective=StepRegression(sizes.pop()))


def spread(
    inputs: np.ndarray, targets: np.ndarray, every: int, time_channel: bool, where: str
) -> Split:
    """Put targets at every so many steps, and NaN between.

    Args:
      inputs: (n, L, F).
      targets: (n, L // every) or (n, L // every, K).
      every: steps from one target to the next.
      time_channel: add a channel of time, from 0 towards 1.
      where: for errors.

    Returns:
      A split of inputs and targets (n, L, K), float32.

    Raises:
      ValueError: arrays that do not fit together.
    """
    targets = targets[..., None] if targets.ndim == 2 else targets
    if inputs.ndim != 3 or targets.shape[:2] != (len(inputs), inputs.shape[1] // every):
        raise ValueError(
            f"{where}: inputs {inputs.shape} and targets {targets.shape}, expected (n, L, F) and "
            f"(n, L // {every}, K)"
        )
    count, length, _ = inputs.shape
    inputs = inputs.astype(np.float32)
    if time_channel:
        time = np.broadcast_to(np.arange(length, dtype=np.float32) / length, (count, length))
        inputs = np.concatenate([time[..., None], inputs], axis=-1)
    spread_out = np.full((count, length, targets.shape[-1]), np.nan, np.float32)
    spread_out[:, every - 1 :: every][:, : targets.shape[1]] = targets
    return Split(inputs, np.full(count, length, np.int32), spread_out)
