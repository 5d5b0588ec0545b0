from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.metrics import accuracy_score, f1_score

from isogloss.adapters.data import read_examples
from isogloss.adapters.evaluation import ROWS_A_BATCH, classification_metrics, evaluate
from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.errors import (
    AdapterFolderError,
    BaseMismatchError,
    BaseNotFoundError,
    EmptyDataError,
    MalformedRowError,
    UnknownLabelError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..conftest import TinyBase
    from .conftest import PeftLogits

LABELS = ("delivery", "payment", "return")


@pytest.fixture(scope="module")
def adapter(
    tiny_encoder: Path, labelled_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An adapter that is sometimes right."""
    config = TrainingConfig(
        base=str(tiny_encoder),
        locale="gsw-CH",
        task="intent",
        data=str(labelled_data),
        out=str(tmp_path_factory.mktemp("adapters") / "adapter"),
        targets=("query", "value"),
        rank=4,
        epochs=12,
        patience=12,
        learning_rate=1e-2,
        precision="fp32",
        device="cpu",
    )
    return train(config, show_progress=False)


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def predictions(adapter: Path, texts: list[str], peft_logits: PeftLogits) -> list[str]:
    labels = json.loads((adapter / "isogloss.json").read_text())["labels"]
    return [labels[index] for index in peft_logits(adapter, texts).argmax(-1).tolist()]


def test_the_figures_are_scikit_learns_on_pefts_predictions(
    adapter: Path,
    tiny_encoder: Path,
    labelled_data: Path,
    peft_logits: PeftLogits,
    tmp_path: Path,
) -> None:
    examples = [
        example
        for split in ("dev", "test", "train")
        for example in read_examples(labelled_data / f"{split}.jsonl")
    ]
    assert len(examples) > 4 * ROWS_A_BATCH
    data = write(tmp_path / "rows.jsonl", [(e.text, e.label) for e in examples])
    result = evaluate(adapter, data, base=str(tiny_encoder), device="cpu")
    gold = [example.label for example in examples]
    predicted = predictions(adapter, [example.text for example in examples], peft_logits)
    assert len(set(predicted)) > 1
    assert gold != predicted
    assert result.metrics == {
        "accuracy": pytest.approx(accuracy_score(gold, predicted)),
        "macro_f1": pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0.0)),
    }
    scores = f1_score(gold, predicted, average=None, labels=LABELS, zero_division=0.0)
    assert result.per_label == pytest.approx(dict(zip(LABELS, scores, strict=True)))
    assert (result.rows, result.truncated) == (len(examples), 0)


def test_the_dev_metrics_recorded_are_found_again(
    adapter: Path, tiny_encoder: Path, labelled_data: Path
) -> None:
    result = evaluate(adapter, labelled_data / "dev.jsonl", base=str(tiny_encoder), device="cpu")
    assert result.metrics == json.loads((adapter / "isogloss.json").read_text())["metrics"]


def test_labels_that_neither_occur_nor_are_predicted_dont_count(
    adapter: Path, tiny_encoder: Path, labelled_data: Path, peft_logits: PeftLogits, tmp_path: Path
) -> None:
    examples = read_examples(labelled_data / "test.jsonl")
    predicted = predictions(adapter, [example.text for example in examples], peft_logits)
    chosen = max(set(predicted), key=predicted.count)
    rows = [(e.text, chosen) for e, p in zip(examples, predicted, strict=True) if p == chosen]
    result = evaluate(adapter, write(tmp_path / "x.jsonl", rows), base=str(tiny_encoder))
    assert result.per_label == {chosen: 1.0}
    assert result.metrics == {"accuracy": 1.0, "macro_f1": 1.0}


def test_classification_metrics_by_hand() -> None:
    """F1: a 2·2/(2·2+1+0) = 0.8, b 0/(0+0+1) = 0, c 0, which is predicted only."""
    metrics = classification_metrics(["a", "a", "b"], ["a", "a", "c"])
    assert metrics == {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(1 / 3)}
    metrics = classification_metrics(["a", "a", "b", "b"], ["a", "a", "a", "b"])
    assert metrics == {
        "accuracy": 0.75,
        "macro_f1": pytest.approx((4 / 5 + 2 / 3) / 2),
    }


def test_truncated_rows_are_counted(
    adapter: Path, tiny_encoder: Path, peft_logits: PeftLogits, tmp_path: Path
) -> None:
    long = "parcel Karte возврат " * 40
    rows = [(long, "return"), ("Karte", "payment"), (long + "x", "delivery")]
    data = write(tmp_path / "rows.jsonl", rows)
    result = evaluate(adapter, data, base=str(tiny_encoder), device="cpu")
    assert (result.rows, result.truncated) == (3, 2)
    predicted = predictions(adapter, [text for text, _ in rows], peft_logits)
    gold = [label for _, label in rows]
    assert result.metrics["accuracy"] == pytest.approx(accuracy_score(gold, predicted))


def test_a_label_unseen_in_training(adapter: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [("parcel", "delivery"), ("parcel", "new")])
    with pytest.raises(UnknownLabelError, match=r"rows\.jsonl, line 2: label 'new'") as caught:
        evaluate(adapter, data, base=str(tiny_encoder))
    assert "delivery, payment, return" in str(caught.value)


def test_another_base(
    adapter: Path, labelled_data: Path, tiny_base: TinyBase, tmp_path: Path
) -> None:
    for model_type in ("xlm-roberta", "bert"):
        with pytest.raises(BaseMismatchError, match="trained on tiny with fingerprint"):
            evaluate(adapter, labelled_data / "test.jsonl", base=str(tiny_base(model_type)))


@pytest.mark.parametrize(
    ("content", "kind"),
    [("", EmptyDataError), ("{", MalformedRowError), ('{"text": "x"}', EmptyDataError)],
)
def test_data_that_cannot_be_used(
    content: str, kind: type[Exception], adapter: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    data: Any = tmp_path / "rows.jsonl"
    data.write_text(content)
    with pytest.raises(kind):
        evaluate(adapter, data, base=str(tiny_encoder))


def test_a_folder_that_is_no_adapter(
    tiny_encoder: Path, labelled_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdapterFolderError, match=r"holds no adapter_config\.json"):
        evaluate(tmp_path, labelled_data / "test.jsonl", base=str(tiny_encoder))


def test_a_base_that_is_not_there(adapter: Path, labelled_data: Path) -> None:
    with pytest.raises(BaseNotFoundError, match="no base at '/nowhere/base'"):
        evaluate(adapter, labelled_data / "test.jsonl", base="/nowhere/base")


def test_an_error_of_a_row_crosses_processes() -> None:
    error = MalformedRowError(Path("dev.jsonl"), 3, "the row has no label")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MalformedRowError
    assert str(again) == str(error) == "dev.jsonl, line 3: the row has no label"
    assert (again.path, again.line) == (error.path, error.line)
