"""Draw the eigenvalues of neurons below threshold in the complex plane (Fig. 2 of 2506.06374).

  python -m experiments.eigenvalues --model=silif --output=silif.png
  python -m experiments.eigenvalues --model=silif --weights=model.pth --output=trained.png

Without weights the neurons are those that training starts from, two layers of 512. The weights are
a state dict of the authors' program, .pth or .npz, with hidden layers of one width.
"""

import flax.linen as nn
import jax
import numpy as np
from absl import app, flags

import pspike_jax
from pspike_jax import models
from pspike_jax.analysis import plots
from pspike_jax.interop import load_silif, read_state_dict
from pspike_jax.models.silif import NEURONS

MODEL = flags.DEFINE_enum("model", None, list(NEURONS), "Which neurons.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Where to write the picture, .png.", required=True)
WEIGHTS = flags.DEFINE_string("weights", None, "State dict of trained weights, .pth or .npz.")
NORMALIZATION = flags.DEFINE_enum(
    "normalization", "batchnorm", ["batchnorm", "layernorm", "none"], "Norm of these weights."
)
SEED = flags.DEFINE_integer("seed", 0, "Of the initial parameters.", 0)


def main(argv: list[str]) -> None:
    """Draw what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    if WEIGHTS.value is None:
        model = pspike_jax.create_model(MODEL.value)
        inputs = np.zeros((1, 1, 1), np.float32)
        variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(SEED.value), inputs))
    else:
        state_dict = read_state_dict(WEIGHTS.value)
        model, variables = load_silif(
            state_dict, neuron=MODEL.value, normalization=NORMALIZATION.value
        )
    eigenvalues = models.poles(model, variables)
    if eigenvalues is None:
        raise app.UsageError(f"hidden layers are {model.config.widths}; a picture needs one width")
    plots.save_figure(plots.poles(eigenvalues), OUTPUT.value)
    largest = np.abs(eigenvalues).max(axis=(1, 2))
    print(f"{OUTPUT.value}: largest |eigenvalue| of each layer {largest.round(5).tolist()}")


if __name__ == "__main__":
    app.run(main)
