"""Weights of Mamba and Mamba-2, to and from the authors' program (state-spaces/mamba).

A mixer is "in_proj.weight" (out, in), "conv1d.weight" (E, 1, K) and so on; a language model has
mixers "backbone.layers.0.mixer.", norms "backbone.layers.0.norm.weight" and
"backbone.norm_f.weight", "backbone.embedding.weight" and "lm_head.weight", which that program ties
to it; here the two are arrays of their own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, dense, export_entries, load_entries
from pspike_jax.models.mamba import Mamba
from pspike_jax.models.mamba2 import Mamba2
from pspike_jax.models.zoo import create_model
from pspike_jax.nn.mixers import SelectiveMixer, SSDMixer

Mixer = SelectiveMixer | SSDMixer


def load_mamba(
    state_dict: Mapping[str, Any], **fields
) -> tuple[SelectiveMixer | Mamba, dict[str, Any]]:
    """Build the mixer, or the language model, of a state dict of Mamba.

    Args:
      state_dict: {name: array or CPU tensor}.
      **fields: of the model, as "pool"; a mixer has none.

    Returns:
      module: with the sizes of the weights.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit.
    """
    return _load(state_dict, "mamba", _selective_sizes, fields)


def load_mamba2(
    state_dict: Mapping[str, Any], *, head_features: int | None = None, groups: int = 1, **fields
) -> tuple[SSDMixer | Mamba2, dict[str, Any]]:
    """Build the mixer, or the language model, of a state dict of Mamba-2.

    Args:
      state_dict: {name: array or CPU tensor}.
      head_features: P; by default what the sizes of the weights say.
      groups: G, which the weights do not tell from the size of the state.
      **fields: of the model, as "pool"; a mixer has none.

    Returns:
      module: with the sizes of the weights.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit; or sizes that do not.
    """

    def sizes(shape):
        found = _ssd_sizes(shape, groups)
        if head_features not in (None, found["head_features"]):
            raise ValueError(
                f"head_features is {head_features}; the weights say {found['head_features']}"
            )
        return found

    return _load(state_dict, "mamba2", sizes, fields)


def export_mamba(
    module: Mixer | Mamba | Mamba2, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: a mixer, or a model.
      params: its parameters, or anything of their structure.

    Returns:
      {name: array}.
    """
    return export_entries({"params": params}, _entries(module))


export_mamba2 = export_mamba


def _load(state_dict, name, sizes: Callable, fields):
    alone = "A_log" in state_dict
    prefix = "" if alone else "backbone.layers.0.mixer."
    shape = lambda key: np.shape(state_dict[prefix + key])
    needed = {"A_log": 1, "conv1d.weight": 3, "out_proj.weight": 2}
    if any(prefix + key not in state_dict or len(shape(key)) < n for key, n in needed.items()):
        wanted = ", ".join(prefix + key for key in needed)
        raise ValueError(f"the state dict does not tell sizes, for which it needs {wanted}")
    found = sizes(shape)
    if name == "mamba2":
        found["learned_start"] = prefix + "init_states" in state_dict
    if alone:
        if fields:
            raise ValueError(f"{', '.join(fields)}: fields of a model, but this is a mixer")
        kind = {"mamba": SelectiveMixer, "mamba2": SSDMixer}[name]
        module = kind(found.pop("d_model"), **found)
        x = jax.ShapeDtypeStruct((1, 2, module.features), jnp.float32)
        return module, load_entries(state_dict, module, _entries(module), x)
    numbered = (re.match(r"backbone\.layers\.(\d+)\.", key) for key in state_dict)
    found["n_layers"] = 1 + max(int(match[1]) for match in numbered if match)
    tokens = len(state_dict.get("backbone.embedding.weight", ()))
    found |= {"vocab_size": tokens, "num_outputs": tokens, "pool": "none", "head_bias": False}
    module = create_model(name, **found | fields)
    if "lm_head.weight" not in state_dict:
        state_dict = dict(state_dict) | {
            "lm_head.weight": state_dict.get("backbone.embedding.weight")
        }
    x = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return module, load_entries(state_dict, module, _entries(module), x)


def _selective_sizes(shape):
    channels, features = shape("out_proj.weight")[::-1]
    return {
        "d_model": features,
        "d_state": shape("A_log")[-1],
        "d_conv": shape("conv1d.weight")[-1],
        "expand": channels // features,
    }


def _ssd_sizes(shape, groups):
    channels, features = shape("out_proj.weight")[::-1]
    convolved, _, taps = shape("conv1d.weight")
    return {
        "d_model": features,
        "d_state": (convolved - channels) // (2 * groups),
        "d_conv": taps,
        "expand": channels // features,
        "head_features": channels // shape("A_log")[0],
        "groups": groups,
    }


def _entries(module: nn.Module) -> Iterator[Entry]:
    if isinstance(module, Mixer):
        yield from _mixer_entries(module, "", (), None)
        return
    config = module.config
    here = ("backbone", "blocks")
    mixer = config.make_mixer(parent=None)
    yield Entry("backbone.embedding.weight", ("params", "encoder", "embed", "embedding"))
    for i in range(config.n_layers):
        there = f"backbone.layers.{i}."
        path = ("params", *here, "norm", "rms", "scale")
        yield Entry(f"{there}norm.weight", path, i)
        yield from _mixer_entries(mixer, f"{there}mixer.", (*here, "mixer"), i)
    yield Entry("backbone.norm_f.weight", ("params", "backbone", "norm", "rms", "scale"))
    yield from dense("lm_head", ("head", "linear"), bias=False)


def _mixer_entries(module, there, here, layer) -> Iterator[Entry]:
    path = ("params", *here)
    is_ssd = isinstance(module, SSDMixer)
    names = {"A_log": "A_log", "D": "D", "conv1d.bias": ("conv", "bias")}
    if is_ssd:
        names |= {"dt_bias": "dt_bias", "norm.weight": ("norm", "scale")}
        names |= {"init_states": "init_states"} if module.learned_start else {}
        channels = module.channels + 2 * module.groups * module.d_state
    else:
        names |= {"dt_proj.bias": "dt_bias", "dt_proj.weight": "dt_kernel"}
        channels = module.channels
    for name, own in names.items():
        own = (own,) if isinstance(own, str) else own
        yield Entry(there + name, (*path, *own), layer)
    shape = (channels, 1, module.d_conv)
    yield Entry(f"{there}conv1d.weight", (*path, "conv", "kernel"), layer, shape=shape)
    for name in ("in_proj", "out_proj") + (() if is_ssd else ("x_proj",)):
        yield from dense(there + name, (*here, name), layer, bias=False)
