"""Picture of a model's block for its page: what the block calls, in order, as the code calls it."""

import contextlib
import html
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import pspike_jax
from pspike_jax.nn.block import Block

WIDTH, HEIGHT, GAP, ROW = 168, 52, 26, 4  # of a box, between boxes, and boxes in a row
# Inputs of models, in the preset "tiny", that do not take any sequence of two features.
SHAPES = {"mamba_fscil": (1, 4, 2), "npsem": (1, 1, 3), "stc": (1, 3, 8, 8, 1)}


class _Seen(Exception):
    """What was to be followed is through."""


class _Calls:
    """Follows what the first module of a kind calls, through those that models make of others."""

    def __init__(self, kind: type):
        self.kind = kind
        self.found: list[tuple[str, str]] = []
        self.inside: list[nn.Module] = []

    def __call__(self, call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if not self.inside and not isinstance(module, self.kind):
            return call(*args, **kwargs)
        shown = bool(self.inside) and self._is_open(self.inside[-1])
        before = len(self.found)
        self.inside.append(module)
        result = call(*args, **kwargs)
        self.inside.pop()
        if not self.inside:
            raise _Seen  # nothing behind it is looked at
        if shown and len(self.found) == before:
            below = module.path[len(self.inside[0].path) :][-2:]  # its own name, and its owner's
            self.found.append((" ".join(below), type(module).__name__))
        return result

    @staticmethod
    def _is_open(module: nn.Module) -> bool:
        """Whether a module's own calls are shown in its place."""
        return isinstance(module, Block) or type(module).__module__.startswith("pspike_jax.models")


def calls_of(name: str) -> list[tuple[str, str]]:
    """Return (name, class) of what the first block of a model calls, in order.

    A model without blocks is followed itself.
    """
    model = pspike_jax.create_model(name, "tiny")
    tokens = getattr(model.config, "vocab_size", None) is not None
    x = jnp.zeros((1, 8), jnp.int32) if tokens else jnp.zeros(SHAPES.get(name, (1, 8, 2)))
    keys = {key: jax.random.key(0) for key in ("params", "spikes", "dropout")}
    for kind in (Block, type(model)):
        calls = _Calls(kind)
        with nn.intercept_methods(calls), contextlib.suppress(_Seen):
            jax.eval_shape(model.init, keys, x)
        if calls.found:
            break
    half = len(calls.found) // 2  # a scan traces its body twice
    twice = calls.found[:half] == calls.found[half:]
    return calls.found[:half] if twice else calls.found


def diagram(name: str) -> str:
    """Return an SVG of a model's block, in one line; "" where its blocks call nothing."""
    calls = calls_of(name)
    if not calls:
        return ""
    rows = -(-len(calls) // ROW)
    width, height = ROW * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="a block of {name}" style="max-width:{width}px;width:100%">'
        '<g font-family="sans-serif" text-anchor="middle" stroke="currentColor" '
        'fill="currentColor">'
    ]
    for number, (module, kind) in enumerate(calls):
        row, column = divmod(number, ROW)
        x, y = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + GAP)
        middle = y + HEIGHT / 2
        words = re.sub(r"_0$", "", module).replace("_", " ").lower()
        parts += [
            f'<path d="M{x - GAP} {middle}H{x - 2}m-6 -4l6 4l-6 4" fill="none"/>',
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="none"/>',
            f'<text x="{x + WIDTH / 2}" y="{y + 22}" font-size="14" stroke="none">'
            f"{html.escape(words)}</text>",
            f'<text x="{x + WIDTH / 2}" y="{y + 40}" font-size="11" stroke="none" '
            f'opacity="0.7">{html.escape(kind)}</text>',
        ]
    return "".join([*parts, "</g></svg>"])
