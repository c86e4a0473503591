"""The models by name."""

import difflib

import flax.linen as nn

from pspike_jax.models import pspikessm, s4d, silif

# {model: (class, {preset: fields}, default preset)}
MODELS = {
    "pspikessm": (pspikessm.PSpikeSSM, pspikessm.PRESETS, "paper"),
    "lif_ssm": (pspikessm.PSpikeSSM, pspikessm.LIF_PRESETS, "paper"),
    "s4d": (s4d.S4D, s4d.PRESETS, "s4d"),
} | {
    name: (silif.SpikingNetwork, presets, "default") for name, presets in silif.PRESETS.items()
}

# A module's `init` is its method, so that field goes by another name inside.
ATTRIBUTES = {"init": "initializer"}


def list_models() -> tuple[str, ...]:
    """Return the names that `create_model` knows."""
    return tuple(sorted(MODELS))


def create_model(name: str, preset: str | None = None, **fields) -> nn.Module:
    """Build a model of the zoo.

    Args:
      name: one of `list_models()`.
      preset: a set of defaults of this model; None takes its first.
      **fields: fields of the model's class, in place of the preset's.

    Returns:
      A Flax module; see the model's class for its call.

    Raises:
      ValueError: unknown model, preset or field, with the nearest known name; fields that do not
        fit together.
    """
    model_class, presets, default = MODELS[_known("model", name, MODELS)]
    defaults = presets[_known("preset", default if preset is None else preset, presets)]
    public = {attribute: field for field, attribute in ATTRIBUTES.items()}
    known = [public.get(attribute, attribute) for attribute in defaults]
    fields = {
        ATTRIBUTES.get(_known(f"field of {name}", field, known), field): value
        for field, value in fields.items()
    }
    model = model_class(**defaults | fields)
    model.check()
    return model


def _known(kind: str, name: str, known) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise ValueError(f"unknown {kind} {name!r}; did you mean {near[0]!r}?")
