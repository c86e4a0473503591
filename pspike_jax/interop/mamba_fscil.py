"""Weights of the authors' Mamba-FSCIL projector (xiaojieli0903/Mamba-FSCIL), in and out."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.tensors import check_entries
from pspike_jax.models.mamba_fscil import MambaFSCIL
from pspike_jax.models.zoo import create_model


class Turned(NamedTuple):
    """One array.

    Attributes:
      name: there.
      path: here.
      shape: there.
      order: axes of there, after its axes of size 1 are gone and groups are apart, in the order of
        here.
      apart: shape there without axes of size 1, groups apart.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    apart: tuple[int, ...]

    def load(self, array: Any) -> np.ndarray:
        """Return the array of here."""
        return np.asarray(array).reshape(self.apart).transpose(self.order)

    def export(self, array: Any) -> np.ndarray:
        """Return the array of there."""
        return np.asarray(array).transpose(np.argsort(self.order)).reshape(self.shape)


def load_mamba_fscil(
    state_dict: Mapping[str, Any], *, size: tuple[int, int], rank: int, **fields
) -> tuple[MambaFSCIL, dict[str, Any]]:
    """Build the projector of a state dict.

    Args:
      state_dict: {name: array or CPU tensor}: "mlp_proj.0.weight", "block.in_proj.weight", ...
      size: (h, w) of the map of tokens.
      rank: of the product that tells time steps.
      **fields: of the model that weights do not tell, as "num_outputs" and "detach".

    Returns:
      module: projector with the sizes of the weights.
      variables: its "params".

    Raises:
      ValueError: one error that lists every entry that does not fit.
    """
    shape = lambda name: np.shape(state_dict.get(name, np.zeros((2, 2))))
    two = "block.conv2d.weight" in state_dict
    rates = shape("block.A_logs" if two else "block.A_log")
    layers = lambda stem: 1 + sum(f"{stem}.{3 * i}.bias" in state_dict for i in range(8))
    module = create_model(
        "mamba_fscil", "cub" if two else "cifar",
        **{
            "height": size[0], "width": size[1], "rank": rank, "d_state": rates[-1],
            "d_hidden": shape("mlp_proj.0.weight")[0], "d_model": shape("pos_embed")[-1],
            "layers": layers("mlp_proj"), "new_branch": "pos_embed_new" in state_dict,
            "new_layers": layers("mlp_proj_new") if "pos_embed_new" in state_dict else 2,
            "identity_product": "residual_proj.proj.weight" in state_dict,
        } | fields,
    )
    channels = shape("mlp_proj.0.weight")[1]
    entries = list(_entries(module, channels))
    x = jax.ShapeDtypeStruct((1, size[0] * size[1], channels), jnp.float32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), x)
    known = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed)["params"])
    names = {entry.name for entry in entries}
    unknown = [f"{name} is unknown" for name in sorted(set(state_dict) - names)]
    check_entries(state_dict, {entry.name: entry.shape for entry in entries}, unknown)
    flat = {e.path: jnp.asarray(e.load(state_dict[e.name]), jnp.float32) for e in entries}
    if {path: leaf.shape for path, leaf in known.items()} != {p: a.shape for p, a in flat.items()}:
        raise ValueError("the state dict does not fit: sizes of its arrays disagree")
    return module, {"params": flax.traverse_util.unflatten_dict(flat)}


def export_mamba_fscil(module: MambaFSCIL, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does: renames and transposes only.

    Args:
      module: the projector.
      params: its parameters, or anything of their structure.

    Returns:
      {name: array}.
    """
    flat = flax.traverse_util.flatten_dict(dict(params))
    products = [path for path in flat if path[0] == "base" and path[1].startswith("product")]
    channels = flat[min(products, key=lambda path: (path[1] == "product", path[1]))].shape[0]
    entries = _entries(module, channels)
    return {entry.name: entry.export(flat[entry.path]) for entry in entries}


def _entries(module: MambaFSCIL, channels: int) -> Iterator[Turned]:
    config = module.config
    if config.identity_product:
        shape = (config.d_model, channels)
        path = ("identity", "kernel")
        yield Turned("residual_proj.proj.weight", path, shape, (1, 0), shape)
    branches = [("base", "", config.layers)]
    branches += [("new", "_new", config.new_layers)] if config.new_branch else []
    for here, suffix, layers in branches:
        yield from _branch(config, here, suffix, layers, channels)


def _branch(config, here, suffix, layers, channels):
    h, w, d = config.height, config.width, config.d_model
    shape = (1, h * w, d)
    yield Turned(f"pos_embed{suffix}", (here, "position"), shape, (0, 1), shape[1:])
    for i in range(layers):
        last, stem = i == layers - 1, f"mlp_proj{suffix}.{3 * i}"
        out = d if last else config.d_hidden
        pair, name = (out, channels), "product" if last else f"product_{i}"
        yield Turned(f"{stem}.weight", (here, name, "kernel"), (*pair, 1, 1), (1, 0), pair)
        channels = out
        if last:
            break
        yield Turned(f"{stem}.bias", (here, name, "bias"), (out,), (0,), (out,))
        norm = f"mlp_proj{suffix}.{3 * i + 1}"
        for there, mine in (("weight", "scale"), ("bias", "bias")):
            path = (here, f"norm_{i}_{mine}")
            yield Turned(f"{norm}.{there}", path, (out, h, w), (1, 0), (out, h * w))
    yield from _block(config, here, f"block{suffix}")


def _block(config, here, block):
    d, n, r = config.d_model, config.d_state, config.rank

    def entry(name, mine, shape, order=None, apart=None):
        apart = shape if apart is None else apart
        order = tuple(range(len(apart))) if order is None else order
        return Turned(f"{block}.{name}", (here, "block", mine), shape, order, apart)

    yield entry("in_proj.weight", "in_proj", (2 * d, d), (1, 0))
    told = r + 2 * n
    if config.kind == "ssm":
        yield entry("A_log", "A_log", (d, n), apart=(1, d, n))
        yield entry("D", "D", (d,), apart=(1, d))
        yield entry("conv1d.weight", "conv", (d, 1, 4), (1, 0), (d, 4))
        yield entry("conv1d.bias", "conv_bias", (d,))
        yield entry("x_proj.weight", "x_proj", (told, d), (0, 2, 1), (1, told, d))
        yield entry("dt_proj.weight", "dt_proj", (d, r), (0, 2, 1), (1, d, r))
        yield entry("dt_proj.bias", "dt_bias", (d,), apart=(1, d))
        return
    yield entry("A_logs", "A_log", (4 * d, n), apart=(4, d, n))
    yield entry("Ds", "D", (4 * d,), apart=(4, d))
    yield entry("conv2d.weight", "conv", (d, 1, 3, 3), (1, 2, 0), (d, 3, 3))
    yield entry("conv2d.bias", "conv_bias", (d,))
    yield entry("x_proj_weight", "x_proj", (4, told, d), (0, 2, 1))
    yield entry("dt_projs_weight", "dt_proj", (4, d, r), (0, 2, 1))
    yield entry("dt_projs_bias", "dt_bias", (4, d))
    for there, mine in (("weight", "scale"), ("bias", "bias")):
        path = (here, "block", "out_norm", mine)
        yield Turned(f"{block}.out_norm.{there}", path, (d,), (0,), (d,))
