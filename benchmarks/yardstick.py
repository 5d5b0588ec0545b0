"""What a linear model over character n-grams makes of the demo's messages.

A yardstick for adapters on a small base: `python -m benchmarks.yardstick` beside
`isogloss demo`, which judges on the same test sets. Takes seconds.
"""

from __future__ import annotations

import json

import click
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from isogloss.adapters.data import read_examples
from isogloss.demo import PAIRS, SHOP


def accuracy(trained_on: str, judged_on: str) -> float:
    """Accuracy on one locale's test set, 0..1, after training on another's rows or its own."""
    train = read_examples(SHOP / trained_on / "train.jsonl")
    test = read_examples(SHOP / judged_on / "test.jsonl")
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
        LogisticRegression(C=30, max_iter=2000),
    )
    model.fit([e.text for e in train], [e.label for e in train])
    return float(model.score([e.text for e in test], [e.label for e in test]))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(as_json: bool) -> None:
    """Print both accuracies for each dialect of the demo."""
    rows = [
        {
            "dialect": dialect,
            "standard": accuracy(standard, dialect),
            "own": accuracy(dialect, dialect),
        }
        for standard, dialect in PAIRS
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['dialect']}: standard {row['standard']:.3f}, own {row['own']:.3f}")


if __name__ == "__main__":
    main()
