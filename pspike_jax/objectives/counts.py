"""Counts of events, such as spikes of recorded neurons: Poisson likelihood of a rate."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives import metrics
from pspike_jax.objectives.objective import Batch, check_shape, refuse, step_mask


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of each step, or of each sequence, as Poisson numbers of rate exp(output).

    Targets are (n, L, num_outputs) whole numbers, -1 or NaN where one does not count. The loss is
    the negative log-likelihood, rate - count log(rate) + log(count!), in nats. Against the model
    "always the mean rate", where that is known, bits per spike and the deviance explained are
    measured (Pei et al. 2021, Neural Latents Benchmark).

    Attributes:
      num_outputs: K, counters.
      rates: (K,) mean counts over training, as `complete` takes them; None without.
      per_step: False where targets are (n, num_outputs), a count of each sequence.
    """

    num_outputs: int | None = None
    rates: tuple[float, ...] | None = None
    per_step: bool = True

    needs_targets: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_outputs is not None and self.num_outputs < 1:
            raise ValueError(f"num_outputs is {self.num_outputs}, expected at least 1")
        if self.rates is not None:
            rates = tuple(map(float, self.rates))
            if len(rates) != self.num_outputs or not all(0 < r < math.inf for r in rates):
                raise ValueError(f"rates are {rates}, expected {self.num_outputs} above 0")
            object.__setattr__(self, "rates", rates)

    @property
    def merit(self) -> tuple[str, str]:
        """Bits per spike, or the loss where mean rates are not known."""
        return ("loss", "min") if self.rates is None else ("bits_per_spike", "max")

    def complete(self, inputs: Any, targets: np.ndarray) -> "Counts":
        """Take number and mean rates of the counters from training examples.

        Args:
          inputs: not used.
          targets: (n, L, K) or (n, K).

        Returns:
          The objective, with `num_outputs` and `rates`.
        """
        if self.rates is not None:
            return self
        counts = np.asarray(targets).reshape(-1, targets.shape[-1])
        known = counts >= 0  # False for NaN
        number = np.maximum(known.sum(axis=0), 1)
        totals = np.where(known, counts, 0).sum(axis=0, dtype=np.float64)
        rates = np.maximum(totals, 0.5) / number  # a counter that was silent may yet count
        outputs = int(targets.shape[-1]) if self.num_outputs is None else self.num_outputs
        return dataclasses.replace(self, num_outputs=outputs, rates=tuple(rates.tolist()))

    def check(
        self, inputs: Any, lengths: np.ndarray, targets: np.ndarray | None, where: str
    ) -> None:
        """Refuse targets that are no counts; see `Objective.check`."""
        packed = np.ndim(targets) == 3
        shape = inputs.shape[:2] if self.per_step or packed else inputs.shape[:1]
        check_shape(targets, [(*shape, self.num_outputs)], where)
        if targets.dtype.kind not in "iuf":
            raise TypeError(f"{where}: targets are {targets.dtype}, expected integers or floats")
        with np.errstate(invalid="ignore"):
            bad = (targets < -1) | ((targets < 0) & (targets > -1)) | np.isinf(targets)
            bad |= (targets > 0) & (targets != np.floor(targets))
        refuse(targets, bad, f"{where}: targets", "whole numbers, or -1 where there is none")
        if not (targets >= 0).any():
            raise ValueError(f"{where}: no target counts")

    def __call__(
        self, outputs: jax.Array, batch: Batch
    ) -> tuple[jax.Array, jax.Array, metrics.Metrics]:
        """Compare log rates with counts; see `Objective`."""
        counts = batch["targets"].astype(jnp.float32)
        valid = counts >= 0
        if self.per_step:
            valid &= step_mask(batch["lengths"], counts.shape[1])[..., None]
        counts = jnp.where(valid, counts, 0.0)
        log_rates = jnp.where(valid, outputs.astype(jnp.float32), 0.0)  # see cross_entropy
        constant = jax.scipy.special.gammaln(counts + 1)
        nats = jnp.where(valid, jnp.exp(log_rates) - counts * log_rates + constant, 0.0)
        known = jnp.sum(valid, axis=-1, dtype=jnp.float32)
        losses = jnp.sum(nats, axis=-1) / jnp.maximum(known, 1.0)
        return losses, known / valid.shape[-1], self._measure(nats, counts, constant, valid)

    def _measure(self, nats, counts, constant, valid):
        if not self.per_step:
            shape = (-1, nats.shape[-1])
            nats, counts, constant, valid = (
                x.reshape(shape) for x in (nats, counts, constant, valid)
            )
        measured = {"loss": metrics.mean_over_steps(nats, valid)}
        if self.rates is None:
            return measured
        rates = jnp.asarray(self.rates, jnp.float32).reshape(*[1] * (counts.ndim - 1), -1)
        null = jnp.where(valid, rates - counts * jnp.log(rates) + constant, 0.0)
        # log-likelihood of the counts themselves as rates; 0 log 0 is 0
        most = counts - counts * jnp.log(jnp.maximum(counts, 1.0)) + constant
        axes, some = tuple(range(1, nats.ndim)), jnp.any(valid, axis=tuple(range(1, nats.ndim)))
        saved, spikes, deviance = (
            jnp.sum(jnp.where(valid, x, 0.0), axis=axes)
            for x in (null - nats, counts, null - most)
        )
        measured["bits_per_spike"] = metrics.ratio(saved / math.log(2), spikes, some)
        measured["deviance_explained"] = metrics.ratio(saved, deviance, some)
        return measured

    def summary(
        self, outputs: np.ndarray, targets: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """Put mean rates beside mean counts.

        Returns:
          "rates" and "counts" (K,) float64, means over what counts; "correlation" (K,) of rates
          with counts, NaN where one of them is constant.
        """
        valid = targets >= 0
        if self.per_step:
            valid &= (np.arange(targets.shape[1]) < lengths[:, None])[..., None]
        valid = valid.reshape(-1, valid.shape[-1])
        rates = np.exp(np.asarray(outputs, np.float64)).reshape(valid.shape)
        counts = np.asarray(targets, np.float64).reshape(valid.shape)
        number = np.maximum(valid.sum(axis=0), 1)
        rate, count = (np.where(valid, x, 0).sum(axis=0) / number for x in (rates, counts))
        off = [np.where(valid, x - center, 0) for x, center in ((rates, rate), (counts, count))]
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = (off[0] * off[1]).sum(axis=0) / np.sqrt(
                (off[0] ** 2).sum(axis=0) * (off[1] ** 2).sum(axis=0)
            )
        return {"rates": rate, "counts": count, "correlation": correlation}
