"""`pspike report RUN`: what a run has left, on one page that needs no network.

Numbers come from the files of the run, pictures are put into the page; nothing is computed again.
"""

import base64
import html
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pspike_jax.analysis.files import atomic_write
from pspike_jax.command.files import read_json

# {heading: {picture: what to look at in it}}, in the order of the page.
PICTURES = {
    "One example": {
        "input": "What the model reads, what is true of it and what the model answered.",
        "raster": "Its spikes, layer by layer. Neurons that stay white are dead for it.",
        "traces": "One neuron of each layer: its spikes (ticks) over its probability of firing.",
        "membranes": "One neuron of each layer: its spikes (ticks) over its membrane, less the "
        "threshold. It fires where the line passes the dashed one.",
    },
    "Answers": {
        "confusion": "Classes that are there against classes that the model answered.",
        "predictions": "Numbers that are there against numbers that the model answered.",
        "residuals": "Errors: how they are distributed, and whether they grow with the target.",
    },
    "Learning": {
        "learning_curve": "Loss and merit. Validation draws noise, too: it jumps by about the "
        "standard error of draws from one point to the next, which is no sign of overfitting by "
        "itself.",
    },
    "Activity": {
        "active_ratio": "Share of a layer's neurons that fire at each step.",
        "probabilities": "How often which firing probability occurs; mass at 0 and 1 passes no "
        "gradient.",
    },
    "Dynamics": {
        "poles": "Poles of the state spaces after training; grey crosses: before. The nearer to "
        "the circle, the longer the memory; the angle is how fast a state turns.",
        "kernels": "What an impulse of one feature leaves in a whole layer, at the output that "
        "hears it most, and how strongly each frequency passes: a line for each of up to eight "
        "features, thick for all of them. Of neurons it is their membranes between spikes.",
        "modes": "Kernels of single modes: what an impulse leaves, and which frequencies pass; "
        "dashed: before training. Of 5, 50 and 95 % of a layer's modes the memory is shorter.",
    },
}
ACTIVITY = {
    "firing_rate": "firing rate", "probability": "mean probability", "dead": "dead",
    "saturated": "saturated", "surrogate": "surrogate gradient > 0",
}
OPERATIONS = {
    "synaptic_ops": "additions that spikes trigger",
    "dense_macs": "multiply-accumulates in their place in the dense twin",
    "encoder_macs": "multiply-accumulates of the encoder, in both",
    "head_macs": "of the head, in both",
    "real_macs": "of other products with real inputs, in both",
    "state_macs": "of state updates, in both",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
 color:#24292f;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto;max-width:100%}
code{overflow-wrap:anywhere}
td,th{border:1px solid #d0d7de;padding:.3rem .6rem;text-align:right}
td{white-space:nowrap}
td:first-child,th:first-child{text-align:left}
img{max-width:100%;height:auto} figure{margin:1.5rem 0} figcaption{color:#57606a}
pre{overflow-x:auto;background:#f6f8fa;padding:1rem;font-size:13px}
summary{cursor:pointer}
"""


def write_page(run: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Write the page of a finished run.

    Args:
      run: its workdir.
      output: the file.

    Returns:
      The file.

    Raises:
      FileNotFoundError: there is no such run, or it is not finished.
    """
    description, evaluation, report = (
        read_json(run / f"{name}.json") for name in ("config", "evaluation", "report")
    )
    config = description.get("config") or {}
    task = config.get("task", {}).get("name", run.name)
    model = config.get("model", {}).get("name", "")
    rest = sorted({path.stem for path in run.glob("*.png")} - set().union(*PICTURES.values()))
    figures = {title: _figures(run, shown) for title, shown in PICTURES.items()}
    parts = [
        f"<h1>{_text(model)} on {_text(task)}</h1>",
        f"<p>Run <code>{_text(run.resolve())}</code></p>",
        "<h2>Test split</h2>", _scores(evaluation, report.get("merit", "")),
        *_headed("One example", figures), *_headed("Answers", figures),
        "<h2>Activity</h2>", _activity(report.get("activity", {})), *figures["Activity"],
        "<h2>Operations and energy</h2>", *_energy(report),
        *_headed("Dynamics", figures),
        "<h2>Learning</h2>", *figures["Learning"], _history(run / "metrics.jsonl"),
        *_figures(run, {name: name.replace("_", " ") for name in rest}),
        "<h2>Where it ran</h2>", _versions(description),
        _folded("The table at the end of the run", _read(run / "report.txt")),
        _folded("Config", json.dumps(config, indent=1)),
        _folded("Settings, versions and machine", json.dumps(
            {key: value for key, value in description.items() if key != "config"}, indent=1
        )),
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(model)} on {_text(task)}</title><style>{STYLE}</style>"
        + "\n".join(part for part in parts if part) + "</html>\n"
    )
    atomic_write(output, page)
    return output


def _text(value: Any) -> str:
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def _scores(evaluation: Mapping[str, Mapping[str, Any]], merit: str) -> str:
    rows = [
        (
            way.replace("_", " "),
            *(_number(score.get(key)) for key in ("mean", "sem", "sem_examples", "examples")),
            _number(score.get("draws", 1)),
        )
        for way, score in evaluation.items()
    ]
    head = ("", merit, "s.e. of draws", "s.e. of examples", "examples", "draws")
    return _table(head, rows)


def _figures(run: pathlib.Path, shown: Mapping[str, str]) -> list[str]:
    """Return pictures of a run, of those that are there, with what to look at in them."""
    figures = []
    for name, words in shown.items():
        if (path := run / f"{name}.png").exists():
            data = base64.b64encode(path.read_bytes()).decode()
            figures.append(
                f'<figure><img alt="{_text(name.replace("_", " "))}" '
                f'src="data:image/png;base64,{data}"><figcaption>{_text(words)}</figcaption>'
                "</figure>"
            )
    return figures


def _headed(title: str, figures: Mapping[str, list[str]]) -> list[str]:
    return [f"<h2>{_text(title)}</h2>", *figures[title]] if figures[title] else []


def _versions(description: Mapping[str, Any]) -> str:
    """A row for each library and for what the run was on."""
    rows = [*description.get("versions", {}).items()]
    rows += [
        (key, str(description[key])[:12]) for key in ("platform", "devices", "commit")
        if isinstance(description.get(key), (str, int))
    ]
    return _table(("", "version"), rows) if rows else ""


def _activity(activity: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A row for each site and layer; shares in percent."""
    if not activity:
        return "<p>Nothing spikes in this model.</p>"
    names = list(next(iter(activity.values())))
    rows = [
        (f"{layer + 1}, {site.replace('_', ' ')}",
         *(f"{100 * shares[name][layer]:.2f} %" if shares[name][layer] is not None else "-"
           for name in names))
        for site, shares in activity.items() for layer in range(len(shares[names[0]]))
    ]
    return _table(("layer, site", *(ACTIVITY.get(name, name) for name in names)), rows)


def _energy(report: Mapping[str, Any]) -> list[str]:
    if "operations" not in report:
        return ["<p>Operations of this model are not counted.</p>"]
    operations = [
        (OPERATIONS.get(name, name), _number(n)) for name, n in report["operations"].items()
    ]
    energy = [
        (name.replace("_", " "), _number(one["spiking_picojoules"] / 1000),
         _number(one["dense_picojoules"] / 1000), _number(one["ratio"]))
        for name, one in report.get("energy", {}).items()
    ]
    head = ("energy per example", "spiking, nJ", "dense twin, nJ", "dense / spiking")
    words = "<p>A count of operations at 45 nm, not a measurement of any hardware.</p>"
    tables = [_table(("operations per example", "number"), operations), _table(head, energy), words]
    return tables + _costs(report.get("costs", {}))


def _costs(costs: Mapping[str, Any]) -> list[str]:
    """Tables of the energy by other prices, and of the rates at which spikes stop paying."""
    if not costs:
        return []
    energy = [
        (name, _number(one["spiking_picojoules"] / 1000), _number(one["dense_picojoules"] / 1000),
         _number(one["ratio"]))
        for name, one in costs.items()
    ]
    head = ("energy with state updates, by prices", "spiking, nJ", "dense twin, nJ", "ratio")
    sites = next(iter(costs.values()))["crossover_rates"]
    rates = [
        (f"{layer + 1}, {site.replace('_', ' ')}", *(
            "always pays" if one["crossover_rates"][site][layer] > 1
            else f"{100 * one['crossover_rates'][site][layer]:.1f} %" for one in costs.values()
        ))
        for site, layers in sites.items() for layer in range(len(layers))
    ]
    words = "<p>Firing rates above which real numbers would be cheaper, by the same prices.</p>"
    return [_table(head, energy), words, _table(("layer, site", *costs), rates)]


def _history(path: pathlib.Path) -> str:
    lines = [json.loads(line) for line in _read(path).splitlines()]
    validated = [x for x in lines if any(key.startswith("validation/") for key in x)] or lines
    keys = list(dict.fromkeys(k for x in validated for k in x if not k.startswith("time/")))
    shown = validated[:: max(1, len(validated) // 12)]
    return _table(keys, [[_number(line.get(key)) for key in keys] for line in shown])


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _folded(title: str, content: str) -> str:
    if not content:
        return ""
    return f"<details><summary>{_text(title)}</summary><pre>{_text(content)}</pre></details>"
