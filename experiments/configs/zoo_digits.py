"""Every classifier of the zoo on handwritten digits: 8 x 8 pixels, read one by one.

  python -m experiments.main --config=experiments/configs/zoo_digits.py:silif --workdir=runs/silif
  python -m experiments.publish --name=silif_digits \
      --config=experiments/configs/zoo_digits.py:silif runs/silif

Variants are the names of the models. Each has the size, the fields and the learning rate that it
has in `experiments.compare`, chosen there by validation, and learns for longer: 30 epochs. The
models of these runs come with the package. `smoke` is SiLIF for a few steps.
"""

import json

from ml_collections import config_dict

from experiments.comparison import BATCH, EVALUATED, fields_of, size_of
from experiments.configs.published import apply_variant, complete
from experiments.record import RESULTS
from pspike_jax import list_models

LENGTH, EPOCH = 64, 39
STEPS = 30 * EPOCH


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config of a model by its name, by default silif; or "smoke"."""
    name = "silif" if variant in (None, "smoke") else variant
    if name not in list_models(kind="classifier"):
        known = ", ".join(list_models(kind="classifier"))
        raise ValueError(f"variant is {variant!r}, expected 'smoke' or one of {known}")
    row = json.loads((RESULTS / "comparison.json").read_text())["models"][name]
    rate, task = row["learning_rate"], {"name": "digits", "seed": 0}
    config = complete(
        task=task,
        model=fields_of(name, LENGTH) | size_of(name, row["tasks"]["digits"]["width"]),
        optimizer={
            "learning_rate": rate,
            "dynamics_rate": rate,
            "step_size_rate": rate,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_steps": STEPS // 20,
        },
        training={
            "steps": STEPS,
            "batch_size": BATCH,
            "seed": 0,
            "log_every": 3 * EPOCH,
            "eval_every": 6 * EPOCH,
            "checkpoint_every": 6 * EPOCH,
            "eval_batch_size": EVALUATED,
            "validation_draws": 4,
        },
    )
    return apply_variant(
        config, "smoke" if variant == "smoke" else None, task=task, model={"widths": (16, 16)}
    )
