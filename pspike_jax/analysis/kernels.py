"""What an impulse leaves in each layer of a model: kernels of mixers, membranes below threshold.

Layers are asked while their model runs: `listen` gives every mixer, and every neuron that has a
membrane, impulses beside its own inputs, and blocks hand on what these leave. So it needs to know
no family. Mixers whose decays follow their inputs have no kernel, and are not asked.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.nn.block import Block, whole_sequences
from pspike_jax.nn.neuron_site import NeuronSite
from pspike_jax.nn.resonators import ResonatorSite

FEATURES = 8  # of a layer that get an impulse
WINDOW = 256  # steps, at most
SMALL = 1e-2  # of a current, so that no neuron at rest fires


@contextlib.contextmanager
def listen(length: int, mixers: bool) -> Iterator[None]:
    """Let the blocks of models that run inside add "kernels" to their aux.

    Args:
      length: steps of the model's own inputs; windows are no longer.
      mixers: whether the model's mixers are linear and do not change with time.
    """
    with nn.intercept_methods(_Listener(max(16, min(WINDOW, length)), mixers)):
        yield


class _Listener:
    """Adds {layer part: {"response": (P, W, H), "start": step of the impulse}} to aux."""

    def __init__(self, window: int, mixers: bool):
        self.window, self.mixers = window, mixers
        self.blocks: list[dict[str, Any]] = []
        self.asking = False

    def __call__(self, call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or self.asking:
            return call(*args, **kwargs)
        if isinstance(module, Block):
            self.blocks.append({})
            try:
                x, state, aux = call(*args, **kwargs)
            finally:
                found = self.blocks.pop()
            return x, state, aux | ({"kernels": found} if found else {})
        result = call(*args, **kwargs)
        if self.blocks and (answer := self._answer(module, args, kwargs)) is not None:
            self.blocks[-1][module.name] = answer
        return result

    def _answer(self, module, args, kwargs):
        """Return what impulses leave in a part of a layer; None of what is no linear memory."""
        neurons = isinstance(module, (NeuronSite, ResonatorSite))
        if not (neurons or (self.mixers and _is_mixer(module))):
            return None
        # A module is called once: a copy of it, by itself, gets the impulses.
        alone, variables = module.clone(parent=None, name=None), module.variables
        ask = lambda *given, **how: alone.apply(variables, *given, **how)
        self.asking = True
        try:
            return (self._of_neurons if neurons else self._of_mixer)(ask, module, args[0], kwargs)
        finally:
            self.asking = False

    def _of_mixer(self, ask, module, u, kwargs):
        reverse = kwargs.get("reverse", False)
        start = self.window // 2 if getattr(module, "two_sided", False) else 0
        start = self.window - 1 - start if reverse else start
        impulses = self._impulses(u, start)
        how = {"reverse": True} if reverse else {}
        response, _ = ask(impulses, None, whole_sequences(impulses), **how)
        return {"response": response.astype(jnp.float32), "start": jnp.int32(start)}

    def _of_neurons(self, ask, module, drive, kwargs):
        impulses = SMALL * self._impulses(drive, 0)
        ctx = whole_sequences(impulses).replace(capture=True)
        how = {"affine": kwargs["affine"]} if "affine" in kwargs else {}
        found, rest = (
            ask(x, None, ctx, **how)[2]["drive_array"][..., : drive.shape[-1]]
            for x in (impulses, jnp.zeros_like(impulses))
        )
        return {"response": (found - rest) / SMALL, "start": jnp.int32(0)}

    def _impulses(self, u: jax.Array, start: int) -> jax.Array:
        """Return an impulse for each of P features, (P, W, H)."""
        features = u.shape[-1]
        chosen = np.unique(np.linspace(0, features - 1, min(FEATURES, features)).astype(int))
        impulses = np.zeros((len(chosen), self.window, features), np.float32)
        impulses[np.arange(len(chosen)), start, chosen] = 1
        return jnp.asarray(impulses, u.dtype)


def _is_mixer(module: nn.Module) -> bool:
    """Tell a mixer, as `nn.mixers` describes them, by what it has."""
    return all(hasattr(type(module), name) for name in ("macs_per_step", "zero_state"))
