"""What ListOps gives to models that read no order: chance, the commonest value, a bag of tokens.

  python -m experiments.listops_baselines

Each stands beside a result only where it saw the same lists: those of experiments/configs/
listops_cpu.py, of up to 500 and up to 2,000 tokens. The bag of tokens is how often each occurs in
a list, given to scikit-learn's gradient boosting and logistic regression; neither knows what is
nested in what. The record is experiments/results/listops_baselines.json, with a page.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.configs import listops_cpu
from experiments.record import RESULTS, hardware
from pspike_jax.analysis.files import atomic_write
from pspike_jax.data import TASKS, Split
from pspike_jax.data.listops import VOCABULARY
from pspike_jax.training.workdir import source_commit

RECORD = RESULTS / "listops_baselines.json"
ABOUT = "no order is read: chance, the commonest value, bags of tokens"
VARIANTS = {"up to 500 tokens": None, "up to 2,000 tokens": "long"}
BAGS = {
    "bag of tokens, gradient boosting": HistGradientBoostingClassifier(random_state=0),
    "bag of tokens, logistic regression": make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=500)
    ),
}


def count_tokens(split: Split) -> np.ndarray:
    """Return how often each token occurs in each list, (n, tokens)."""
    tokens = np.asarray(split.inputs)
    return np.stack([np.sum(tokens == token, axis=1) for token in range(1, len(VOCABULARY))], 1)


def measure(train: Split, test: Split) -> dict[str, float]:
    """Return the accuracy on the test lists of each baseline by name."""
    commonest = np.bincount(train.targets).argmax()
    found = {"chance": 0.1, "the commonest value": float(np.mean(test.targets == commonest))}
    bags = count_tokens(train), count_tokens(test)
    for name, model in BAGS.items():
        found[name] = float(model.fit(bags[0], train.targets).score(bags[1], test.targets))
    return found


def make_record() -> dict[str, Any]:
    """Return accuracies of all baselines, by lengths."""
    tables = {}
    for lengths, variant in VARIANTS.items():
        fields = listops_cpu.get_config(variant).task.to_dict()
        task = TASKS[fields.pop("name")](**fields)
        tables[lengths] = {
            "train": len(task.train.lengths), "test": len(task.test.lengths),
            "accuracy": measure(task.train, task.test),
        }
    return {
        "about": ABOUT, "command": "python -m experiments.listops_baselines", "tables": tables,
        "hardware": hardware(), "commit": source_commit(),
        "versions": {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
    }


def page(record: Mapping[str, Any]) -> str:
    """Return the record as Markdown."""
    lines = ["# ListOps without order", ""]
    lines += [f"Made by `{record['command']}`: {record['about']}.", ""]
    lines += ["| | " + " | ".join(record["tables"]) + " |", "| --- |" + " --- |" * len(VARIANTS)]
    for name in ("chance", "the commonest value", *BAGS):
        cells = []
        for table in record["tables"].values():
            mean = table["accuracy"][name]
            error = 0 if name == "chance" else math.sqrt(mean * (1 - mean) / table["test"])
            cells.append(f"{100 * mean:.1f} %" + (f" ± {100 * error:.1f}" if error else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    shown = " and ".join(
        f"{table['train']:,} lists for training and {table['test']:,} for test, {lengths}"
        for lengths, table in record["tables"].items()
    )
    return "\n".join([*lines, "", f"{shown}; errors are those of test lists.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the record, or its page alone, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.listops_baselines", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    asked = parser.parse_args(arguments)
    if not asked.page:
        atomic_write(asked.record, json.dumps(make_record(), indent=1) + "\n")
    text = page(json.loads(asked.record.read_text()))
    atomic_write(asked.record.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
