"""What the configs for one's own data share: a small P-SpikeSSM, and a few minutes of training."""

from collections.abc import Mapping
from typing import Any

Sections = dict[str, dict[str, Any]]


def own_data(task: Mapping[str, Any], variant: str | None) -> Sections:
    """Return a config for a task of the caller's files.

    Args:
      task: the task section; its path is empty, the command line gives it.
      variant: None; a name of a model; or "smoke", which runs every part and learns nothing.
    """
    smoke = variant == "smoke"
    name = "pspikessm" if variant in (None, "smoke") else variant
    sizes = {"d_model": 64, "n_layers": 2} if name == "pspikessm" else {}
    config: Sections = {
        "task": {"path": "", **task, "validation": 0.1, "test": 0.1, "seed": 0},
        "model": {"name": name, **sizes},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.01, "warmup_steps": 0},
        "training": {
            "steps": 1000, "batch_size": 32, "seed": 0, "log_every": 10, "eval_every": 100,
            "checkpoint_every": 100, "eval_batch_size": 128, "validation_draws": 1,
            "early_stopping": None,
        },
        "mesh": {"data": None, "fsdp": 1, "model": 1, "sequence": 1},
        "evaluation": {"draws": 8, "seed": 0},
    }
    if smoke:
        config["model"] |= {"d_model": 8, "d_state": 4, "n_layers": 1}
        config["training"] |= {
            "steps": 4, "batch_size": 8, "eval_batch_size": 8, "log_every": 2, "eval_every": 4,
            "checkpoint_every": 4,
        }
        config["evaluation"]["draws"] = 2
    return config
