"""Japanese vowels: 9 speakers say /ae/; 12 LPC cepstrum coefficients in 7 to 29 frames.

M. Kudo, J. Toyama and M. Shimbo, "Multidimensional curve classification using passing-through
regions", Pattern Recognition Letters 20, 1999; UCI archive. The class is the speaker. Read from
the published .ts files of the UEA archive, with its split: 30 utterances of each speaker for
training, 370 for test. The wheel of aeon 1.6.0 holds both files, in
aeon/datasets/data/JapaneseVowels. Nothing is downloaded.
"""

import pathlib

import numpy as np

from pspike_jax.data.batches import Task
from pspike_jax.data.series import pad, standardized_task
from pspike_jax.data.source import held_out
from pspike_jax.data.split import take
from pspike_jax.data.uea import read_ts
from pspike_jax.data.untrusted import check_link

FILES = {"train": "JapaneseVowels_TRAIN.ts", "test": "JapaneseVowels_TEST.ts"}
EXAMPLES = {"train": 270, "test": 370}
CHANNELS, LENGTH, SPEAKERS = 12, 29, 9
VALIDATION_SHARE = 0.2


def load_japanese_vowels(*, source_dir: str, seed: int) -> Task:
    """Read the vowels, each channel scaled to mean 0 and variance 1 over training frames.

    Args:
      source_dir: folder of the two .ts files.
      seed: of the choice of a fifth of the training utterances for validation; not negative.

    Returns:
      Task of 9 classes, inputs (n, 29, 12) float32, zero behind each utterance's length; 216, 54
      and 370 examples.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is not what was published.
    """
    folder = pathlib.Path(source_dir).expanduser()
    splits = {}
    for name, file in FILES.items():
        series, speakers = read_ts(check_link(folder, folder / file))
        shapes = {one.shape[0] for one in series}
        longest = max((one.shape[1] for one in series), default=0)
        if len(series) != EXAMPLES[name] or shapes != {CHANNELS} or longest > LENGTH:
            raise ValueError(
                f"{folder / file}: {len(series)} series of {sorted(shapes)} channels and at most "
                f"{longest} frames; published are {EXAMPLES[name]} of {CHANNELS} and {LENGTH}"
            )
        names = [str(number) for number in range(1, SPEAKERS + 1)]
        if not set(speakers) <= set(names):
            raise ValueError(f"{folder / file}: speakers {sorted(set(speakers))}, expected {names}")
        labels = [names.index(speaker) for speaker in speakers]
        splits[name] = pad([one.T for one in series], np.asarray(labels, np.int32), LENGTH)
    train, validation = held_out(splits["train"].targets, VALIDATION_SHARE, seed=seed)
    train, validation = take(splits["train"], train), take(splits["train"], validation)
    return standardized_task("japanese_vowels", train, validation, splits["test"], SPEAKERS)
