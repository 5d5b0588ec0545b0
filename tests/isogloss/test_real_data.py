"""The main job on real data: Minangkabau sentiment, from training to prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import isogloss

if TYPE_CHECKING:
    from pathlib import Path

CHANCE = 1 / 3


@pytest.mark.slow
def test_minangkabau_sentiment(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "nusax_senti" / "min-ID"
    folder = isogloss.train(
        isogloss.TrainingConfig(
            base="mini",
            locale="min-ID",
            task="sentiment",
            data=str(data),
            out=str(tmp_path / "A"),
            epochs=6,
        )
    )
    judged = isogloss.evaluate(folder, data / "test.jsonl")
    assert judged.rows == 400
    assert judged.metrics["macro_f1"] > CHANCE + 0.12
    with isogloss.Registry.open(tmp_path / "registry") as registry:
        version = registry.publish(folder)
        assert version.metrics == registry.version(version.digest).metrics
        hub = isogloss.Hub(registry)
        predictions = hub.predict(
            ["Makanannyo lamak bana", "Pelayanannyo buruak"], task="sentiment", locale="min-ID"
        )
    assert {prediction.adapter for prediction in predictions} == {version.name}
    assert all(prediction.label in version.labels for prediction in predictions)
