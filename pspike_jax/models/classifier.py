"""What every sequence classifier of the zoo shares: encoder, backbone, pooling, streaming."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.models.inputs import check_inputs
from pspike_jax.nn.backbone import SAMPLINGS, NoiseArgument
from pspike_jax.nn.encoders import Encoder
from pspike_jax.nn.fields import check_choice, check_whole
from pspike_jax.nn.heads import POOLS, Classifier, Retrieval, pool_steps
from pspike_jax.nn.precision import PRECISIONS


class SequenceClassifier(nn.Module):
    """encoder -> backbone -> pool -> class scores.

    A subclass has the fields of its backbone's configuration, and `config`, `make_backbone` and
    `stochastic`.

    Attributes:
      num_classes: number of classes.
      vocab_size: number of tokens; None for real inputs (B, L, F).
      pool: "mean" or "last" over valid steps, or "none" for scores at every step.
      documents: 2 compares two documents, inputs (B, 2, L), lengths (B, 2); else 1.
      precision: name in `nn.precision.PRECISIONS`, of activations and matrix products.
    """

    num_classes: int
    vocab_size: int | None
    pool: str
    documents: int
    precision: str

    @nn.nowrap
    def check(self) -> None:
        """Raise TypeError or ValueError where fields do not fit together."""
        self.config  # checks the fields of the blocks as it is built
        check_choice("pool", self.pool, POOLS)
        if self.documents not in (1, 2):
            raise ValueError(f"documents must be 1 or 2, not {self.documents}")
        if self.documents == 2 and self.pool == "none":
            raise ValueError("documents=2 compares pooled features; pool 'none' has none")
        check_choice("precision", self.precision, PRECISIONS)
        check_whole("num_classes", self.num_classes)
        check_whole("vocab_size", self.vocab_size, optional=True)

    def setup(self):
        self.encoder = Encoder(self.d_model, self.vocab_size, PRECISIONS[self.precision])
        self.backbone = self.make_backbone()
        head = Retrieval if self.documents == 2 else Classifier
        self.head = head(self.num_classes)

    def __call__(
        self,
        inputs: jax.Array,
        lengths: jax.Array | None = None,
        train: bool = False,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Classify whole sequences.

        Draws from the rng stream "spikes" unless noise is given or sampling is "mean", and from
        "dropout" in training.

        Args:
          inputs: (B, L) int tokens, or (B, L, F) real; (B, 2, L) with two documents.
          lengths: (B,) int, valid steps of each example, all if None; (B, 2) with two documents.
          train: batch statistics (collection "batch_stats", mutable) and dropout.
          noise: None, a number for every uniform, or per block a tuple of (B, L, H) uniforms.
          sampling: "spikes", or "mean" for probabilities in place of spikes.
          example_ids: (B,) int, names of the examples for the noise; arange(B) if None.
          capture: add full spike and probability arrays to aux.

        Returns:
          logits: (B, num_classes); (B, L, num_classes) without pooling.
          aux: {site: activity}, each entry stacked over layers, see `nn.activity`.

        Raises:
          TypeError, ValueError: inputs that do not fit, or no source of noise.
        """
        check_inputs(inputs, lengths, self.vocab_size, self.documents)
        batch = inputs.shape[0]
        ids, key = _ids(example_ids, batch), self._key(noise, sampling)
        if self.documents == 2:
            ids = (2 * ids[:, None] + jnp.arange(2)[None, :]).reshape(-1)
            inputs = inputs.reshape(2 * batch, *inputs.shape[2:])
            lengths = None if lengths is None else lengths.reshape(-1)
        x, aux, _ = self.backbone.run(
            self.encoder(inputs), lengths, train, noise, sampling, ids, capture, key
        )
        pooled = pool_steps(x, self.pool, lengths)
        if self.documents == 2:
            pooled = pooled.reshape(batch, 2, self.d_model)
        return self.head(pooled), aux

    @nn.nowrap
    def initial_state(self, batch_size: int) -> dict:
        """Return the state before the first step of a stream, for `step` and `prefill`.

        Args:
          batch_size: B.

        Returns:
          {"t": step count, "blocks": states of the layers, SSMs' (n_layers, B, H, N/2) complex64,
          "sum": (B, H) sum of features for mean pooling}.

        Raises:
          ValueError: the model is not causal, or compares documents.
        """
        if not self.causal or self.documents == 2:
            raise ValueError("streaming needs causal=True and one document")
        one = self.config.zero_state(batch_size)
        stacked = jax.tree.map(lambda a: jnp.zeros((self.n_layers, *a.shape), a.dtype), one)
        total = jnp.zeros((batch_size, self.d_model), jnp.float32)
        return {"t": jnp.int32(0), "blocks": stacked, "sum": total}

    def prefill(
        self,
        state: dict,
        inputs: jax.Array,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Continue a stream by a chunk of any length; noise goes on where the last chunk ended.

        Args:
          state: from `initial_state` or an earlier call.
          inputs: (B, L) or (B, L, F), the next L steps.
          noise, sampling, example_ids, capture: as in `__call__`; noise arrays cover the chunk.

        Returns:
          state: after the chunk.
          (logits, aux): logits as `__call__` gives them for all steps so far.
        """
        check_inputs(inputs, None, self.vocab_size)
        ids, key = _ids(example_ids, inputs.shape[0]), self._key(noise, sampling)
        x, aux, blocks = self.backbone.run(
            self.encoder(inputs), None, False, noise, sampling, ids, capture, key,
            state["blocks"], state["t"],
        )
        t = state["t"] + inputs.shape[1]
        total = state["sum"] + jnp.sum(x.astype(jnp.float32), axis=1)
        x = x.astype(jnp.float32)
        pooled = {"mean": total / t, "last": x[:, -1], "none": x}[self.pool]
        return {"t": t, "blocks": blocks, "sum": total}, (self.head(pooled), aux)

    def step(
        self,
        state: dict,
        inputs: jax.Array,
        noise: NoiseArgument = None,
        sampling: str = "spikes",
        example_ids: jax.Array | None = None,
        capture: bool = False,
    ):
        """Continue a stream by one step: as `prefill`, for inputs (B,) or (B, F).

        Without pooling the logits are those of this step, (B, num_classes).
        """
        state, (logits, aux) = self.prefill(
            state, inputs[:, None], noise, sampling, example_ids, capture
        )
        return state, (logits[:, 0] if self.pool == "none" else logits, aux)

    def _key(self, noise, sampling):
        """Draw the key of a pass: once, at the root, so that every method gets the same one."""
        check_choice("sampling", sampling, SAMPLINGS)
        if noise is not None or sampling == "mean" or not self.stochastic:
            return None
        if not (self.has_rng("spikes") or self.is_initializing()):
            raise ValueError("spikes need randomness: pass rngs={'spikes': key}, or noise=...")
        return self.make_rng("spikes")


def _ids(example_ids, batch):
    """Return (B,) names of the examples, their rows if None."""
    ids = jnp.arange(batch) if example_ids is None else jnp.asarray(example_ids)
    if ids.shape != (batch,) or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"example_ids are {ids.dtype} {ids.shape}; expected integer ({batch},)")
    return ids
