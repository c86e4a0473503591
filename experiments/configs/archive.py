"""Small sets of the UEA and TSER archives, real recordings, by models of one size.

  python -m experiments.main --config=experiments/configs/archive.py:covid --workdir=runs/covid

The wheel of aeon 1.6.0 holds the files, in aeon/datasets/data: unpack it into data/raw/aeon. A
variant is a set, or a set and a model, such as `motions-pspikessm`; the model is linoss otherwise.
`smoke` runs every part in seconds, on generated oscillations. Sizes and rates are chosen here, the
same for every set and model; `experiments.archive` keeps what comes of it.
"""

from ml_collections import config_dict

from experiments.configs.published import apply_variant, complete

# `gaps` and `untold` are the motions with three in four frames lost, in `untold` without a word of
# how much time has passed.
SETS = {
    "covid": {"dataset": "Covid3Month", "scale": "log"},
    "motions": {"dataset": "BasicMotions", "scale": "standard"},
    "gaps": {"dataset": "BasicMotions", "scale": "standard", "keep": 0.25},
    "untold": {"dataset": "BasicMotions", "scale": "standard", "keep": 0.25, "timed": False},
}
FOLDER = "data/raw/aeon/aeon/datasets/data"
STEPS = {"dt_min": 0.01, "dt_max": 0.5}  # time constants of 2 to 100 steps
MODELS = {
    "linoss": {"preset": "linoss"},
    "dlinoss": {"preset": "dlinoss"},
    "s5": {"preset": "s5", "blocks": 2} | STEPS,
    "pspikessm": {"preset": "paper"} | STEPS,
}


def get_config(variant: str | None = None) -> config_dict.ConfigDict:
    """Return the config; variant None, "smoke", "SET" or "SET-MODEL"."""
    small = variant == "smoke"
    name, _, model = ("covid" if small or variant is None else variant).partition("-")
    model = model or "linoss"
    if name not in SETS or model not in MODELS:
        raise ValueError(
            f"variant is {variant!r}, expected 'smoke', none, or one of {', '.join(SETS)}, alone "
            f"or with one of {', '.join(MODELS)} behind a dash"
        )
    config = complete(
        task={
            "name": "uea", "source_dir": f"{FOLDER}/{SETS[name]['dataset']}",
            "split": "archive", "seed": 0, "keep": 1.0, "timed": True,
        } | SETS[name],
        model={"name": model, "d_model": 16, "d_state": 16, "n_layers": 2, "dropout": 0.1}
        | MODELS[model],
        optimizer={
            "learning_rate": 5e-3, "dynamics_rate": 5e-3, "step_size_rate": 5e-3,
            "weight_decay": 0.01, "schedule": "cosine", "warmup_steps": 20,
        },
        training={
            "steps": 400, "batch_size": 16, "seed": 0, "log_every": 20, "eval_every": 40,
            "checkpoint_every": 200, "eval_batch_size": 64,
        },
    )
    return apply_variant(
        config, "smoke" if small else None,
        task={
            "name": "oscillations", "length": 24, "channels": 3, "classes": 3, "examples": 40,
            "seed": 0,
        },
        model={"d_model": 4, "d_state": 4, "n_layers": 1},
    )
