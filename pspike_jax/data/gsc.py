"""Speech Commands v0.02 as filter-bank features: 35 words, up to 98 frames of 40 numbers.

What is computed is the filter bank of Kaldi as torchaudio.compliance.kaldi.fbank computes it by
default, with 40 bins (the input of sparch and of SiLIF, arXiv 2506.06374), without dither:

1. Samples in [-1, 1); frames of 400 samples (25 ms) that start every 160 samples (10 ms), none
   beyond the end: 1 + (n - 400) // 160 frames.
2. In each frame: the mean is taken away; then x[i] - 0.97 x[i - 1], x[-1] being x[0]; then the
   "povey" window, (1/2 - 1/2 cos(2 pi i / 399)) ** 0.85.
3. The power spectrum of the frame, padded with zeros to 512 samples.
4. 40 triangles, equally wide and half overlapping on the mel scale 1127 ln(1 + f / 700) between
   20 Hz and 8,000 Hz, linear in mel; the Nyquist bin is left out.
5. The natural logarithm, of at least 2 ** -23.

Splits are the official lists. Numbers are not normalized.
"""

import dataclasses
import functools
import os

import numpy as np

from pspike_jax.data.source import Source, count_differences, in_order
from pspike_jax.data.speech_commands import (
    ALL_WORDS,
    LENGTH,
    PUBLISHED_35,
    SAMPLE_RATE,
    list_official,
    read_wav,
)

FRAME = 400
STEP = 160
FFT_SIZE = 512
FRAMES = 1 + (LENGTH - FRAME) // STEP
_LOW, _HIGH = 20.0, SAMPLE_RATE / 2
_PREEMPHASIS = 0.97
_FLOOR = 2.0**-23
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class GscSettings:
    """How to compute the features.

    Attributes:
      num_bins: number of triangles, 2 to 80.
    """

    num_bins: int = 40

    def __post_init__(self):
        if not 2 <= self.num_bins <= 80:
            raise ValueError(f"num_bins is {self.num_bins}, expected 2 to 80")


def gsc_source(
    settings: GscSettings, source_dir: str | os.PathLike, processes: int = 1
) -> Source:
    """Compute features of Speech Commands.

    Args:
      settings: number of bins.
      source_dir: folder of a folder for each word and the two lists.
      processes: how many processes share the work.

    Returns:
      A Source of inputs (n, 98, num_bins) float32, zero behind the last frame.

    Raises:
      FileNotFoundError, ValueError: files are missing or damaged.
    """
    splits = list_official(source_dir)
    counts = {name: len(paths) for name, (paths, _) in splits.items()}
    jobs = (
        (paths[i : i + _BLOCK], labels[i : i + _BLOCK])
        for paths, labels in splits.values()
        for i in range(0, len(paths), _BLOCK)
    )
    return Source(
        name=f"gsc ({settings.num_bins} filter-bank features)",
        counts=counts,
        shape=(FRAMES, settings.num_bins),
        dtype="float32",
        num_classes=len(ALL_WORDS),
        vocab_size=None,
        blocks=in_order(functools.partial(_read_block, settings.num_bins), jobs, processes),
        settings=dataclasses.asdict(settings),
        differences=count_differences(PUBLISHED_35, counts),
    )


def filter_bank_features(sound: np.ndarray, num_bins: int) -> np.ndarray:
    """Compute log filter-bank energies; the steps stand at the top of the module.

    Args:
      sound: (n,) samples in [-1, 1), n at least 400.
      num_bins: number of triangles.

    Returns:
      (1 + (n - 400) // 160, num_bins) float32.
    """
    if sound.size < FRAME:
        raise ValueError(f"{sound.size} samples, expected at least {FRAME}, one frame")
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), FRAME)[::STEP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PREEMPHASIS * before) * _window()
    power = np.abs(np.fft.rfft(frames, FFT_SIZE)) ** 2
    energies = power @ mel_triangles(num_bins)
    return np.log(np.maximum(energies, _FLOOR)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _window():
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / (FRAME - 1))) ** 0.85


@functools.lru_cache(maxsize=2)
def mel_triangles(num_bins: int) -> np.ndarray:
    """Weigh the bins of the spectrum by triangles on the mel scale.

    Args:
      num_bins: number of triangles.

    Returns:
      (257, num_bins) weights in [0, 1].
    """
    mel = 1127.0 * np.log1p(np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE / 700.0)
    low, high = 1127.0 * np.log1p(np.array([_LOW, _HIGH]) / 700.0)
    width = (high - low) / (num_bins + 1)
    centers = low + width * np.arange(1, num_bins + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(mel[:, None] - centers) / width)
    weights[-1] = 0.0
    return weights


def _read_block(num_bins, job):
    paths, labels = job
    inputs = np.zeros((len(paths), FRAMES, num_bins), np.float32)
    lengths = np.empty(len(paths), np.int32)
    for row, path in enumerate(paths):
        sound = read_wav(path)
        if sound.size < FRAME:
            raise ValueError(f"{path}: {sound.size} samples, expected at least one frame, {FRAME}")
        features = filter_bank_features(sound / 2.0**15, num_bins)
        inputs[row, : len(features)] = features
        lengths[row] = len(features)
    return inputs, lengths, labels
