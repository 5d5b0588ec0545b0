"""Rows of tables: Parquet files, and what the `datasets` library reads (Hub, or its folders)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataNotFoundError, MalformedRowError
from .row_files import check_columns, not_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from datasets import Dataset

    from .row_files import RawRow
    from .row_layouts import Fields, RowLayout

HUB_PREFIX = "hf:"


def read_parquet(
    path: Path, layout: RowLayout[Any], columns: Mapping[str, str]
) -> Iterator[RawRow]:
    """Rows of a Parquet file, batch by batch, the columns that the layout knows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            check_columns(path, schema.names, layout, columns)
            wanted = {*layout.known, *columns.values()}
            names = _class_names(schema)
            for batch in file.iter_batches(columns=[n for n in schema.names if n in wanted]):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, _name_classes(fields, names)
    except OSError as error:
        raise not_found(path, error) from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise MalformedRowError(path, number + 1, f"not Parquet ({problem:.200})") from None


def load_splits(name: str) -> dict[str, Dataset]:
    """The splits of a dataset, under the names that it has for them.

    Args:
        name: `OWNER/NAME`, with `:CONFIG` for one of several; or a folder of `save_to_disk`.
            What was downloaded before is read without a connection.

    Raises:
        DataNotFoundError: no such dataset, configuration or connection.
    """
    import datasets

    try:
        if Path(name).is_dir() and _was_saved(Path(name)):
            loaded = datasets.load_from_disk(name)
        else:
            path, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
            loaded = datasets.load_dataset(path, config or None)
    # Its errors have no common root: OSError for connections, ValueError for configurations.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        problem = " ".join(str(error).split())
        raise DataNotFoundError(
            f"can't read the dataset {name} ({problem:.300}); check its name, or download it "
            "before and give the folder"
        ) from None
    if isinstance(loaded, datasets.Dataset):
        return {"train": loaded}
    return {str(split): dataset for split, dataset in loaded.items()}


def _was_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def read_dataset(
    dataset: Dataset, path: Path, layout: RowLayout[Any], columns: Mapping[str, str]
) -> Iterator[RawRow]:
    """The rows of one split, numbered from 1; classes stand there by name.

    Raises:
        MalformedRowError: a column that the task needs isn't there.
    """
    check_columns(path, dataset.column_names, layout, columns)
    wanted = {*layout.known, *columns.values()}
    # Other columns may hold pictures or sound, which would be decoded.
    chosen = dataset.select_columns([name for name in dataset.column_names if name in wanted])
    names = {name: found for name in wanted if (found := _classes(dataset.features.get(name)))}
    for number, fields in enumerate(chosen, start=1):
        yield number, _name_classes(dict(fields), names)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The classes of the columns of a Parquet file that `datasets` wrote; else nothing.

    Args:
        schema: the file's `pyarrow.Schema`.
    """
    metadata = schema.metadata or {}
    if b"huggingface" not in metadata:
        return {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}  # somebody else's metadata under the same name
    return {name: found for name, feature in features.items() if (found := _classes(feature))}


def _classes(feature: Any) -> list[str] | None:
    """The names of a column's classes, or of the classes in its lists."""
    if isinstance(feature, dict):  # as it is written in a file
        inner = feature.get("feature")
        names = feature.get("names")
    else:
        inner = getattr(feature, "feature", None)
        names = getattr(feature, "names", None)
    if inner is not None:
        return _classes(inner)
    return list(names) if names else None


def _name_classes(fields: Fields, names: Mapping[str, list[str]]) -> Fields:
    """The row with its classes by name; -1, which stands for no class, becomes None."""
    return {
        name: _named(value, names[name]) if name in names else value
        for name, value in fields.items()
    }


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
