from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isogloss.adapters.row_layouts import LAYOUTS
from isogloss.adapters.sources import open_splits, read_file
from isogloss.core.errors import DataNotFoundError, MalformedRowError

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss.adapters.row_files import RawRow
    from isogloss.adapters.spec import TaskType

CLASSES = datasets.ClassLabel(names=["bye", "greet"])


@pytest.fixture(scope="module")
def greetings() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": ["Hoi", "Ade", "Sali"], "label": [1, 0, -1], "picture": [b"1", b"2", b"3"]},
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "label": CLASSES,
                "picture": datasets.Value("binary"),
            }
        ),
    )


@pytest.fixture(autouse=True)
def no_progress_bars() -> None:
    datasets.disable_progress_bars()


def rows_of(path: Path, task_type: TaskType = "sequence-classification") -> list[RawRow]:
    return list(read_file(path, LAYOUTS[task_type], {}))


NAMED = [
    (1, {"text": "Hoi", "label": "greet"}),
    (2, {"text": "Ade", "label": "bye"}),
    (3, {"text": "Sali", "label": None}),
]


def test_parquet_gives_the_known_columns_with_classes_by_name(
    tmp_path: Path, greetings: datasets.Dataset
) -> None:
    path = tmp_path / "we[i]rd*.parquet"
    greetings.to_parquet(path)
    assert rows_of(path) == NAMED


def test_parquet_that_another_program_wrote(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"tokens": [["uf", "Bern"]], "tags": [["ADP", "PROPN"]], "n": [1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"something else"}), path)
    assert rows_of(path, "token-classification") == [
        (1, {"tokens": ["uf", "Bern"], "tags": ["ADP", "PROPN"]})
    ]


def test_parquet_with_answers_in_both_layouts(tmp_path: Path) -> None:
    shared = {"question": ["q"], "context": ["c"]}
    answers: list[Any] = [{"text": ["c"], "answer_start": [0]}, [{"text": "c", "start": 0}]]
    layout = LAYOUTS["question-answering"]
    for given in answers:
        path = tmp_path / "qa.parquet"
        pq.write_table(pa.table({**shared, "answers": [given]}), path)
        ((_, row),) = rows_of(path, "question-answering")
        assert row == {"question": "q", "context": "c", "answers": given}
        assert layout.missing(list(row)) == []


def test_parquet_without_a_column_or_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["x"], "intent": ["a"]}), path)
    with pytest.raises(MalformedRowError, match=r"no column label; the columns are 'text', 'int"):
        rows_of(path)
    path.write_bytes(b"text,label\nx,a\n")
    with pytest.raises(MalformedRowError, match=r"rows\.parquet, line 1: not Parquet \(") as caught:
        rows_of(path)
    assert "\n" not in str(caught.value)


def test_parquet_cut_off(tmp_path: Path, greetings: datasets.Dataset) -> None:
    path = tmp_path / "rows.parquet"
    greetings.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MalformedRowError, match="not Parquet"):
        rows_of(path)


def test_a_folder_that_datasets_wrote(tmp_path: Path, greetings: datasets.Dataset) -> None:
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": greetings, "validation": greetings}).save_to_disk(folder)
    splits = open_splits(f"hf:{folder}")
    assert list(splits) == ["train", "dev"]
    layout = LAYOUTS["sequence-classification"]
    assert list(splits["dev"].read(layout, {})) == NAMED
    assert str(splits["dev"].path) == f"hf:{folder}/validation"


def test_one_dataset_alone_is_for_training(tmp_path: Path, greetings: datasets.Dataset) -> None:
    greetings.rename_column("text", "sentence").save_to_disk(tmp_path / "saved")
    splits = open_splits(f"hf:{tmp_path / 'saved'}")
    assert list(splits) == ["train"]
    layout = LAYOUTS["sequence-classification"]
    first = next(splits["train"].read(layout, {"text": "sentence"}))
    assert first == (1, {"text": "Hoi", "label": "greet", "sentence": "Hoi"})
    with pytest.raises(MalformedRowError, match=r"hf:.*train, line 1: no column text; the colu"):
        next(splits["train"].read(layout, {}))


def test_tags_by_name_in_lists(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-GPE"])),
        }
    )
    rows = {"tokens": [["uf", "Bern"]], "tags": [[0, 1]]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(tmp_path / "saved")
    dataset.to_parquet(tmp_path / "rows.parquet")
    layout = LAYOUTS["token-classification"]
    wanted = [(1, {"tokens": ["uf", "Bern"], "tags": ["O", "B-GPE"]})]
    assert list(open_splits(f"hf:{tmp_path / 'saved'}")["train"].read(layout, {})) == wanted
    assert rows_of(tmp_path / "rows.parquet", "token-classification") == wanted


def test_splits_of_unknown_names(tmp_path: Path, greetings: datasets.Dataset) -> None:
    datasets.DatasetDict({"extra": greetings}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataNotFoundError, match=r"no train, dev or test split, but extra"):
        open_splits(f"hf:{tmp_path / 'saved'}")


def test_without_a_connection_there_is_one_clear_line(tmp_path: Path) -> None:
    program = (
        "from isogloss.adapters.sources import open_splits\n"
        "from isogloss.core.errors import DataNotFoundError\n"
        "try:\n    open_splits('hf:nobody/nothing:some-config')\n"
        "except DataNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("can't read the dataset nobody/nothing:some-config (")
    assert "check its name, or download it" in done.stdout
    assert done.stdout.count("\n") == 1
