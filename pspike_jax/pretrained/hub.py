"""The card of a trained model as model hubs show it: what it answers, how well, and its limits."""

from collections.abc import Mapping
from typing import Any

from pspike_jax.export.cards import Result

REPOSITORY_LICENCE = "mit"  # of weights that come with the package


def hub_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `export.save` says of a pretrained model.

    Args:
      card: of `load_pretrained`; that of a folder of `export.save` says nothing of data.

    Returns:
      Arguments of `export.save` by name: words, licence, results.

    Example:
      model, variables, card = pspike_jax.load_pretrained("silif_digits")
      export.save("silif", model, variables, input_shape=card["input"]["shape"], **hub_card(card))
    """
    if "data" not in card:
        return {}
    task, figures = card["task"], card["figures"]["test_accuracy"]
    lines = [task["question"], "", "## Results on the test set", "", "| way | accuracy |"]
    lines.append("| --- | --- |")
    for way, found in figures.items():
        error = f"{100 * found['sem_examples']:.1f}"
        lines.append(f"| {_way(way, found)} | {100 * found['mean']:.1f} ± {error} % |")
    examples = figures["sampled"]["examples"]
    lines += ["", f"Standard errors are those of {examples:,} test examples.", "", "## Data", ""]
    lines += [card["data"]["source"], "", f"Licence of the data: {card['data']['licence']}."]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card["limits"])]
    lines += ["", "## Training", "", "```bash", card["command"], "```", ""]
    versions = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    hardware = card["hardware"]
    lines.append(
        f"Commit {card['commit']}; {versions}; {hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['minutes']:.1f} minutes of steps."
    )
    result = Result(task["name"], "accuracy", figures["sampled"]["mean"])
    return {"words": "\n".join(lines), "licence": REPOSITORY_LICENCE, "results": [result]}


def _way(way: str, found: Mapping[str, Any]) -> str:
    """Return in words how spikes were found for a figure."""
    if way == "sampled":
        draws = found.get("draws")
        return "no chance in it" if draws is None else f"drawn spikes, mean of {draws} draws"
    return way.replace("_", " ")
