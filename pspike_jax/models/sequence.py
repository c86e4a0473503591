"""What every sequence model of the zoo shares: encoder -> blocks -> head; whole, or as a stream."""

import dataclasses
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import valid_rows, valid_steps
from pspike_jax.functional.noise import threefry_key
from pspike_jax.models.config import Config
from pspike_jax.models.inputs import check_ids, check_inputs, check_steps_apart
from pspike_jax.nn.block import Pass
from pspike_jax.nn.encoders import Encoder, InputFeatures
from pspike_jax.nn.fields import check_choice
from pspike_jax.nn.heads import PooledHead, Retrieval
from pspike_jax.nn.placement import time_parts
from pspike_jax.nn.precision import PRECISIONS

SAMPLINGS = ("spikes", "mean")
# What a model may be able to do beside whole sequences, see `SequenceModel.supports`.
SUPPORTS = ("streaming", "resets", "dt", "sequence", "pairs")
CAUSAL = frozenset({"streaming", "resets", "dt"})  # needs causal layers, and one document a row
NoiseArgument = float | jax.Array | list | tuple | None


class SequenceModel(nn.Module):
    """encoder -> blocks -> head, for any family.

    A family has its own class of `config` and writes `make_backbone`; where it differs it also
    writes `make_encoder`, `make_head`, `samplers`, `capabilities` or `starting_state`.

    Attributes:
      config: the fields of the family.
    """

    config: Config

    # Kinds of uniforms that a block draws; 0 where nothing is drawn.
    samplers = 0

    def setup(self):
        self.encoder = self.make_encoder()
        self.backbone = self.make_backbone()
        self.head = self.make_head()

    @nn.nowrap
    def make_encoder(self) -> nn.Module:
        """Return what maps inputs to (B, L, H): a table of tokens, a linear map, or nothing."""
        config = self.config
        dtype = PRECISIONS[config.precision]
        if config.encoder == "none":
            return InputFeatures(config.vocab_size, dtype, self.input_features)
        return Encoder(config.d_model, config.vocab_size, dtype)

    @nn.nowrap
    def make_backbone(self) -> nn.Module:
        """Return a `Stack` or a `Chain` of blocks."""
        raise NotImplementedError(f"{type(self).__name__} has no backbone")

    @nn.nowrap
    def make_head(self) -> nn.Module:
        """Return what maps (B, L, H) to outputs."""
        config = self.config
        if config.documents == 2:
            return Retrieval(config.num_outputs, config.pool)
        if config.head == "none":
            return PooledHead(None, config.pool)
        return PooledHead(config.num_outputs, config.pool, **self.head_options)

    @property
    def head_options(self) -> dict[str, Any]:
        """Fields of the head of outputs, see `PooledHead`, where they are not its defaults."""
        return {}

    @property
    def input_features(self) -> int | None:
        """What inputs must have where the encoder is 'none'."""
        return self.config.d_model

    @property
    def stochastic(self) -> bool:
        """Whether a pass draws noise."""
        return self.samplers > 0

    @property
    def supports(self) -> frozenset[str]:
        """What this model can do beside whole sequences of steps of equal length.

        "streaming", by `step` and `prefill`; "resets", rows that hold several examples; "dt", a
        time between steps; "sequence", time split over devices; "pairs" of documents.
        """
        found = self.capabilities | ({"pairs"} if self.config.compares_pairs else set())
        return found - CAUSAL if self.config.documents == 2 else found

    @property
    def capabilities(self) -> frozenset[str]:
        """Of what `supports` lists, what encoder, blocks and head can do for one document."""
        return frozenset()

    @nn.nowrap
    def replace(self, **fields: object) -> "SequenceModel":
        """Return the same model with other fields; its parameters are new where shapes differ."""
        return self.clone(config=dataclasses.replace(self.config, **fields))

    def __call__(
        self,
        inputs: jax.Array,
        lengths: jax.Array | None = None,
        train: bool = False,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
        resets: jax.Array | None = None,
        dt: jax.Array | None = None,
        state: Any = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Run whole sequences.

        Draws from the rng stream "spikes" unless noise is given or sampling is "mean", and from
        "dropout" in training.

        Args:
          inputs: (B, L) int tokens, or (B, L, F) real; (B, 2, L) with two documents.
          lengths: (B,) int, valid steps of each row, all if None; (B, 2) with two documents.
          train: batch statistics (collection "batch_stats", mutable) and dropout.
          noise: None, a number for every uniform, or per block a tuple of (B, L, H) uniforms.
          sampling: "spikes", or "mean" for probabilities in place of spikes.
          example_ids: (B,) int, names of the examples for the noise; arange(B) if None; (B, L)
            where rows hold several examples.
          capture: add full arrays of spikes, probabilities and drives to aux.
          resets: (B, L) bool, true at the first step of each example where rows hold several.
          dt: (B, L) positive, time since the step before in units of the model's step.
          state: to start from, as `initial_state` gives it; None for rest.

        Returns:
          outputs: (B, num_outputs), or (B, L, num_outputs) where pool is "none" or resets are
            given, see `nn.heads`.
          aux: {"sites": {site: activity, stacked over layers}, "losses": {name: scalar}, "macs":
            {"encoder", "head", "state", "dense": multiply-accumulates of all valid steps}}.

        Raises:
          TypeError, ValueError: inputs that do not fit, or no source of noise.
        """
        config = self.config
        check_inputs(inputs, lengths, config.vocab_size, config.documents)
        batch = inputs.shape[0]
        ids = check_ids(example_ids, batch, None if resets is None else inputs.shape[1])
        lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32)
        if config.documents == 2:
            ids = (2 * ids[:, None] + jnp.arange(2, dtype=ids.dtype)[None, :]).reshape(-1)
            inputs = inputs.reshape(2 * batch, *inputs.shape[2:])
            lengths = None if lengths is None else lengths.reshape(-1)
        check_steps_apart(inputs, resets, dt, self.supports)
        ctx = self._pass(inputs, lengths, noise, sampling, ids, resets, dt, 0)
        ctx = ctx.replace(train=train, capture=capture)
        if state is None:
            state = self.starting_state(inputs.shape[0], ctx, noise)
        outputs, aux, _ = self._run(inputs, state, ctx)
        return outputs, aux

    @nn.nowrap
    def initial_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream, for `step` and `prefill`.

        Args:
          batch_size: B.

        Returns:
          {"t": () int32, steps so far; "layers": states of the blocks; "head": of the head}.

        Raises:
          ValueError: the model does not stream.
        """
        if "streaming" not in self.supports:
            raise ValueError(
                "this model does not stream, which needs causal layers and one document"
            )
        return self.resting_state(batch_size)

    @nn.nowrap
    def resting_state(self, batch_size: int) -> dict:
        """Return the state of a model at rest."""
        bound = self.scope is not None
        backbone = self.backbone if bound else self.make_backbone()
        head = self.head if bound else self.make_head()
        layers = backbone.zero_state(batch_size)
        head = head.zero_state(batch_size, self.config.d_model)
        return {"t": jnp.int32(0), "layers": layers, "head": head}

    @nn.nowrap
    def starting_state(self, batch_size: int, ctx: Pass, noise: NoiseArgument) -> dict | None:
        """Return the state from which whole sequences start: None is rest."""
        del batch_size, ctx, noise

    @nn.nowrap
    def poles(self, params: Any) -> jax.Array | None:
        """Return the discretised poles (layers, H, N), or None where there are none."""
        del params

    def prefill(
        self,
        state: dict,
        inputs: jax.Array,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
        dt: jax.Array | None = None,
    ) -> tuple[dict[str, Any], tuple[jax.Array, dict[str, Any]]]:
        """Continue a stream by a chunk of any length; noise goes on where the last chunk ended.

        Compile it, `jax.jit(functools.partial(model.apply, method="prefill"))`: outside of jit
        every call traces the model anew, which takes most of a second.

        Args:
          state: from `initial_state` or an earlier call.
          inputs: (B, L) or (B, L, F), the next L steps.
          noise, sampling, example_ids, capture, dt: as in `__call__`; arrays cover the chunk.

        Returns:
          state: after the chunk.
          (outputs, aux): outputs as `__call__` gives them for all steps so far.
        """
        check_inputs(inputs, None, self.config.vocab_size)
        check_steps_apart(inputs, None, dt, self.supports)
        ids = check_ids(example_ids, inputs.shape[0], None)
        ctx = self._pass(inputs, None, noise, sampling, ids, None, dt, state["t"])
        outputs, aux, state = self._run(inputs, state, ctx.replace(capture=capture))
        return state, (outputs, aux)

    def step(
        self,
        state: dict,
        inputs: jax.Array,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
        dt: jax.Array | None = None,
    ) -> tuple[dict[str, Any], tuple[jax.Array, dict[str, Any]]]:
        """Continue a stream by one step: as `prefill`, for inputs (B,) or (B, F), and dt (B,).

        As every method it is meant to be compiled, see `prefill`.

        Without pooling the outputs are those of this step, (B, num_outputs).
        """
        dt = None if dt is None else dt[:, None]
        state, (outputs, aux) = self.prefill(
            state, inputs[:, None], noise, sampling, example_ids, capture, dt
        )
        return state, (outputs[:, 0] if outputs.ndim == 3 else outputs, aux)

    def _run(self, inputs, state, ctx):
        before = state or {"layers": None, "head": None}
        x = self.encoder(inputs)
        steps = valid_steps(x, ctx.mask)
        x, layers, aux = self.backbone(x, before["layers"], ctx)
        seen = self.backbone.after(ctx)
        outputs, head = self.head(x, before["head"], seen)
        every_step = outputs.ndim == 3
        macs = {name: steps * each for name, each in aux.get("macs", {}).items()}
        macs["encoder"] = macs.get("encoder", 0.0) + steps * self.encoder.macs_per_step(inputs)
        each = self.head.macs_per_output(x.shape[-1])
        examples = valid_rows(x, seen.mask) / self.config.documents
        count = valid_steps(x, seen.mask) if every_step else examples
        macs["head"] = count * each
        aux = {"sites": {}, "losses": {}} | aux | {"macs": macs}
        t = ctx.steps.shape[-1] + (0 if state is None else state["t"])
        return outputs, aux, {"t": t, "layers": layers, "head": head}

    def _pass(self, inputs, lengths, noise, sampling, ids, resets, dt, start):
        check_choice("sampling", sampling, SAMPLINGS)
        length = inputs.shape[1]
        steps = jnp.arange(length, dtype=jnp.int32) + start
        if resets is not None:
            if time_parts() > 1:
                raise ValueError("resets are given, expected none where the mesh splits time")
            last = jax.lax.cummax(jnp.where(resets, steps[None], jnp.int32(0)), axis=1)
            steps = steps[None] - last
        number, arrays = self._split_noise(noise, inputs.shape[:2])
        return Pass(
            key=self._key(noise, sampling),
            example_ids=ids,
            steps=steps,
            lengths=lengths,
            mask=(
                None
                if lengths is None
                else jnp.arange(length, dtype=jnp.int32)[None, :] < lengths[:, None]
            ),
            resets=resets,
            dt=dt,
            number=number,
            arrays=arrays,
            sampling=sampling,
        )

    def _key(self, noise, sampling):
        """Draw the key of a pass: once, at the root, so that every method gets the same one."""
        if noise is not None or sampling == "mean" or not self.samplers:
            return None
        if not (self.has_rng("spikes") or self.is_initializing()):
            raise ValueError("spikes need randomness: pass rngs={'spikes': key}, or noise=...")
        return threefry_key(self.make_rng("spikes"))

    @nn.nowrap
    def _split_noise(self, noise, rows):
        """Tell a number from per-block tuples of uniforms, and stack the latter over layers."""
        if noise is None:
            return None, None
        if not isinstance(noise, (list, tuple)):
            number = jnp.asarray(noise, jnp.float32)
            if number.ndim:
                raise ValueError(f"noise must be a number or a tuple per block, not {number.shape}")
            if isinstance(noise, numbers.Real) and not 0 <= noise <= 1:
                raise ValueError(f"noise is {noise}; a uniform lies between 0 and 1")
            return number, None
        n_layers, shape = self.config.n_layers, (*rows, self.config.d_model)
        if [len(arrays) for arrays in noise] != [self.samplers] * n_layers:
            raise ValueError(
                f"noise has {[len(arrays) for arrays in noise]} arrays in its blocks; "
                f"expected {self.samplers} in each of {n_layers}"
            )
        for arrays in noise:
            for array in arrays:
                if jnp.shape(array) != shape:
                    raise ValueError(f"noise has shape {jnp.shape(array)}; expected {shape}")
        return None, tuple(jnp.stack(list(arrays)) for arrays in zip(*noise))
