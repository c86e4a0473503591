"""The models by name."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pspike_jax.models import (
    binary_s4d,
    dlds,
    dlinoss,
    event_ssm,
    fsnn,
    gla,
    langevinflow,
    linoss,
    longspike,
    mamba,
    mamba2,
    mamba_fscil,
    npsem,
    pendulum,
    pmsn,
    prf,
    psm,
    pspikessm,
    s4d,
    s5,
    s5rf,
    seqboat,
    silif,
    spike_ssm,
    spikingssm,
    stc,
)
from pspike_jax.models.config import Config, field_types
from pspike_jax.models.sequence import SUPPORTS, SequenceModel


class Family(NamedTuple):
    """What the zoo knows of a model.

    Attributes:
      model: its class.
      presets: configurations by name; the first is the default, and "tiny" computes in a moment.
      kind: "classifier" for sequence models of any objective, "latent" for models with an
        objective of their own.
    """

    model: type[SequenceModel]
    presets: Mapping[str, Config]
    kind: str = "classifier"


MODELS: dict[str, Family] = {
    "dlinoss": Family(dlinoss.DLinOSS, dlinoss.PRESETS),
    "event_ssm": Family(event_ssm.EventSSM, event_ssm.PRESETS),
    "linoss": Family(linoss.LinOSS, linoss.PRESETS),
    "pspikessm": Family(pspikessm.PSpikeSSM, pspikessm.PRESETS),
    "lif_ssm": Family(pspikessm.PSpikeSSM, pspikessm.LIF_PRESETS),
    "binary_s4d": Family(binary_s4d.BinaryS4D, binary_s4d.PRESETS),
    "gsu_s4d": Family(binary_s4d.BinaryS4D, binary_s4d.GSU_PRESETS),
    "dlds": Family(dlds.DLDS, dlds.PRESETS, "latent"),
    "langevinflow": Family(langevinflow.LangevinFlow, langevinflow.PRESETS, "latent"),
    "mamba_fscil": Family(mamba_fscil.MambaFSCIL, mamba_fscil.PRESETS, "latent"),
    "npsem": Family(npsem.NPSEM, npsem.PRESETS, "latent"),
    "gla": Family(gla.GLA, gla.PRESETS),
    "mamba": Family(mamba.Mamba, mamba.PRESETS),
    "mamba2": Family(mamba2.Mamba2, mamba2.PRESETS),
    "pmsn": Family(pmsn.PMSN, pmsn.PRESETS),
    "prf": Family(prf.PRF, prf.PRESETS),
    "psm": Family(psm.PSM, psm.PRESETS),
    "s4d": Family(s4d.S4D, s4d.PRESETS),
    "s5rf": Family(s5rf.S5RF, s5rf.PRESETS),
    "fsnn": Family(fsnn.FSNN, fsnn.PRESETS),
    "seqboat": Family(seqboat.SeqBoat, seqboat.PRESETS),
    "stc": Family(stc.STC, stc.PRESETS, kind="latent"),
    "pendulum": Family(pendulum.PendulumNetwork, pendulum.PRESETS),
    "spikingssm": Family(spikingssm.SpikingSSM, spikingssm.PRESETS),
    "longspike": Family(longspike.LongSpike, longspike.PRESETS),
    "spike_ssm": Family(spike_ssm.SPikESSM, spike_ssm.PRESETS),
    "s5": Family(s5.S5, s5.PRESETS),
    **{name: Family(silif.SpikingNetwork, presets) for name, presets in silif.PRESETS.items()},
}


class Field(NamedTuple):
    """A field of a model's configuration.

    Attributes:
      name: as `create_model` takes it.
      kind: its type.
      default: in the default preset.
      choices: names that it may be, or None.
      meaning: what it is.
    """

    name: str
    kind: str
    default: Any
    choices: tuple[str, ...] | None
    meaning: str


class Description(NamedTuple):
    """What a model is made from; printed, it is a table.

    Attributes:
      name: of the model.
      summary: the first line of its file.
      kind: as in `Family`.
      supports: what it can do beside whole sequences, see `SequenceModel.supports`.
      presets: {preset: fields that differ from the default preset}.
      fields: of its configuration.
    """

    name: str
    summary: str
    kind: str
    supports: tuple[str, ...]
    presets: dict[str, dict[str, Any]]
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        rows = [(f.name, str(f.default), f.kind, f.meaning + _choices(f)) for f in self.fields]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{self.name}: {self.summary}", f"supports: {', '.join(self.supports) or '-'}"]
        lines += [f"preset {name}: {fields or 'defaults'}" for name, fields in self.presets.items()]
        for row in rows:
            start = "  ".join(text.ljust(width) for text, width in zip(row, widths))
            lines.append(f"  {start}  {row[3]}")
        return "\n".join(lines)


def _choices(field: Field) -> str:
    return "" if field.choices is None else f" ({', '.join(field.choices)})"


def list_models(supports: str | None = None, kind: str | None = None) -> tuple[str, ...]:
    """Return the names that `create_model` knows.

    Args:
      supports: only models whose default preset supports this, as `SequenceModel.supports` names
        it, for example "streaming" or "resets".
      kind: only models of this kind, see `Family`.

    Raises:
      ValueError: no model is of that kind, or supports that.
    """
    if kind is not None:
        _known("kind of models", kind, {family.kind for family in MODELS.values()})
    if supports is not None:
        _known("support", supports, SUPPORTS)
    return tuple(
        name
        for name, family in sorted(MODELS.items())
        if kind in (None, family.kind)
        and (supports is None or supports in create_model(name).supports)
    )


def create_model(name: str, preset: str | None = None, **fields: object) -> SequenceModel:
    """Build a model of the zoo.

    Args:
      name: one of `list_models()`.
      preset: a configuration of this model; None takes its first.
      **fields: fields in place of the preset's; `describe_model` lists them.

    Returns:
      A Flax module, see `SequenceModel` for its call.

    Raises:
      TypeError, ValueError: unknown model, preset or field, with the nearest known name; values
        that do not fit.

    Examples:
      >>> model = create_model("pspikessm", num_outputs=3, d_model=32, n_layers=2)
    """
    family = MODELS[_known("model", name, MODELS)]
    presets = family.presets
    preset = next(iter(presets)) if preset is None else preset
    config = presets[_known(f"preset of {name}", preset, presets)]
    known = [field.name for field in dataclasses.fields(config)]
    for field in fields:
        _known(f"field of {name}", field, known)
    return family.model(dataclasses.replace(config, **fields))


def describe_model(name: str) -> Description:
    """Say what a model is made from.

    Args:
      name: one of `list_models()`.

    Returns:
      Its fields with defaults, choices and meanings, its presets, and what it supports.

    Raises:
      ValueError: unknown model, with the nearest known name.
    """
    family = MODELS[_known("model", name, MODELS)]
    default = next(iter(family.presets.values()))
    kinds = field_types(type(default))
    fields = tuple(
        Field(
            name=field.name,
            kind=getattr(kinds[field.name], "__name__", str(kinds[field.name])),
            default=getattr(default, field.name),
            choices=field.metadata["choices"],
            meaning=field.metadata["meaning"],
        )
        for field in dataclasses.fields(default)
    )
    presets = {
        preset: {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != getattr(default, field.name)
        }
        for preset, config in family.presets.items()
    }
    model = family.model(default)
    summary = (type(model).__doc__ or "").splitlines()[0]
    return Description(name, summary, family.kind, tuple(sorted(model.supports)), presets, fields)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    if not isinstance(name, str):
        hint = "; fields are given by name, **fields" if isinstance(name, Mapping) else ""
        raise TypeError(f"a {kind} is a {type(name).__name__}, expected a name{hint}")
    if name in known:
        return name
    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    near = [lower[one] for one in near]
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")
