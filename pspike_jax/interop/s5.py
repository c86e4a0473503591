"""Weights of S5 and Event-SSM, to and from the authors' Flax programs.

Names are the paths in their variables, joined by dots, such as "encoder.layers_0.seq.Lambda_re"
(S5, lindermanlab/S5) and "encoder.stages_0.SequenceLayer_0.S5SSM_0.Lambda_re" (Event-SSM).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.entries import Entry, export_entries, load_entries
from pspike_jax.models.event_ssm import EventSSM
from pspike_jax.models.s5 import S5
from pspike_jax.models.zoo import create_model


def load_s5(state_dict: Mapping[str, Any], **fields) -> tuple[S5, dict[str, Any]]:
    """Build the S5 network of a program's arrays.

    Args:
      state_dict: {name: array}; batch statistics may be missing.
      **fields: fields of the model that no shape tells: gate, norm, prenorm, rule, clip, conjugate,
        momentum, pool; sees_padding=True for what the program computes of padded inputs.

    Returns:
      module: network with the sizes of the weights. Its outputs are scores, before log-softmax.
      variables: "params", and "batch_stats" where norm is "batch".

    Raises:
      ValueError: one error that lists every entry that is unknown, missing, misshapen or not real.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    inputs, d_model = _shape(arrays, "encoder.encoder.kernel")
    modes, _ = _shape(arrays, "encoder.layers_0.seq.log_step")
    module = create_model(
        "s5",
        num_outputs=_shape(arrays, "decoder.kernel")[1],
        d_model=d_model,
        d_state=modes * (2 if fields.get("conjugate", True) else 1),
        blocks=1,
        n_layers=_count(arrays, r"encoder\.layers_(\d+)\."),
        causal="encoder.layers_0.seq.C2" not in arrays,
        **fields,
    )
    entries = list(_s5_entries(module))
    x = jax.ShapeDtypeStruct((1, 2, inputs), jnp.float32)
    return module, load_entries(arrays, module, entries, x, _statistics(entries))


def export_s5(
    module: S5, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do: names and shapes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.

    Returns:
      {name: array}.
    """
    return export_entries(_trees(params, batch_stats), _s5_entries(module))


def load_event_ssm(state_dict: Mapping[str, Any], **fields) -> tuple[EventSSM, dict[str, Any]]:
    """Build the Event-SSM network of a program's arrays.

    Args:
      state_dict: {name: array}; batch statistics may be missing.
      **fields: fields of the model that no shape tells: stride, pooling, pool, pool_by, rule, norm,
        prenorm, conjugate, momentum, clip; sees_padding=True for what the program computes of
        padded inputs.

    Returns:
      module: network with the sizes of the weights.
      variables: "params", and "batch_stats" where norm is "batch".

    Raises:
      ValueError: one error that lists every entry that is unknown, missing, misshapen or not real.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    vocab_size, d_model = _shape(arrays, "encoder.encoder.embedding")
    first = "encoder.stages_{}.SequenceLayer_0.S5SSM_0"
    modes, _ = _shape(arrays, f"{first.format(0)}.log_step")
    later, _ = _shape(arrays, f"{first.format(1)}.log_step")
    n_stages = _count(arrays, r"encoder\.stages_(\d+)\.")
    module = create_model(
        "event_ssm",
        vocab_size=vocab_size,
        num_outputs=_shape(arrays, "decoder.kernel")[1],
        d_model=d_model,
        d_state=modes * (2 if fields.get("conjugate", True) else 1),
        block_size=2 if fields.get("conjugate", True) else 1,
        n_stages=n_stages,
        stage_layers=_count(arrays, r"encoder\.stages_0\.SequenceLayer_(\d+)\."),
        expansion=max(1, later // modes) if n_stages > 1 else 1,
        **fields,
    )
    entries = list(_event_entries(module))
    x = jax.ShapeDtypeStruct((1, module.config.stride**n_stages), jnp.int32)
    return module, load_entries(arrays, module, entries, x, _statistics(entries))


def export_event_ssm(
    module: EventSSM, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do; see `export_s5`."""
    return export_entries(_trees(params, batch_stats), _event_entries(module))


def _s5_entries(module) -> Iterator[Entry]:
    config = module.config
    yield from _dense("encoder.encoder", ("params", "encoder", "linear"))
    yield from _dense("decoder", ("params", "head", "linear"))
    for i in range(config.n_layers):
        there, here = f"encoder.layers_{i}", ("backbone", "blocks")
        yield from _norm(f"{there}.norm", (*here, "norm"), config.norm, i)
        if config.gate != "gelu":
            yield from _dense(f"{there}.out2", ("params", *here, "gate"), i)
        if config.gate == "full_glu":
            yield from _dense(f"{there}.out1", ("params", *here, "value"), i)
        ssm = ("params", *here, "ssm")
        yield from _modes(f"{there}.seq", ssm, i)
        yield Entry(f"{there}.seq.D", (*ssm, "D"), i)
        for row, name in enumerate(["C"] if config.causal else ["C1", "C2"]):
            yield Entry(f"{there}.seq.{name}", (*ssm, "C"), i, row=row)


def _event_entries(module) -> Iterator[Entry]:
    config = module.config
    yield Entry("encoder.encoder.embedding", ("params", "encoder", "embed", "embedding"))
    yield from _dense("decoder", ("params", "head", "linear"))
    kind = {"layer": "LayerNorm_0", "batch": "BatchNorm_0"}[config.norm]
    for i, (features, outputs, *_) in enumerate(config.sizes):
        stage, layer = divmod(i, config.stage_layers)
        there, here = f"encoder.stages_{stage}.SequenceLayer_{layer}", ("backbone", f"layers_{i}")
        yield from _norm(f"{there}.{kind}", (*here, "norm"), config.norm)
        yield from _dense(f"{there}.Dense_0", ("params", *here, "gate"))
        if features != outputs:
            yield from _dense(f"{there}.Dense_1", ("params", *here, "widen"))
        yield from _modes(f"{there}.S5SSM_0", ("params", *here, "ssm"))
        yield Entry(f"{there}.S5SSM_0.C", ("params", *here, "ssm", "C"), row=0)
        yield Entry(f"{there}.S5SSM_0.D", ("params", *here, "D"))


def _modes(there, here, layer=None):
    for name in ("Lambda_re", "Lambda_im", "B"):
        yield Entry(f"{there}.{name}", (*here, name), layer, transpose=False)
    yield Entry(f"{there}.log_step", (*here, "log_step"), layer, column=True)


def _norm(there, here, kind, layer=None):
    for name in ("scale", "bias"):
        yield Entry(f"{there}.{name}", ("params", *here, kind, name), layer)
    for name in ("mean", "var") if kind == "batch" else ():
        yield Entry(f"{there}.{name}", ("batch_stats", *here, kind, name), layer)


def _dense(there, here, layer=None):
    for name in ("kernel", "bias"):
        yield Entry(f"{there}.{name}", (*here, name), layer, transpose=False)


def _trees(params, batch_stats):
    return {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})


def _statistics(entries):
    return [entry.name for entry in entries if entry.path[0] == "batch_stats"]


def _shape(arrays, name):
    """Return two sizes of an array, 1 where it lacks them: checks will name it."""
    return (*np.shape(arrays.get(name, ())), 1, 1)[:2]


def _count(arrays, pattern):
    return max(1, len({m[1] for name in arrays if (m := re.match(pattern, str(name)))}))
