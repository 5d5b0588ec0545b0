from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.files import SPEC_FILE
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.errors import (
    BaseMismatchError,
    BaseNotFoundError,
    TensorKeysError,
    TensorShapeError,
    UnsupportedBaseError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")


def test_another_base_of_the_same_shape(ours: Path, tiny_base: TinyBase, refused: Refused) -> None:
    other = tiny_base("xlm-roberta", seed=1)
    recorded = AdapterSpec.from_json((ours / SPEC_FILE).read_bytes()).base_fingerprint
    refused(BaseMismatchError, ours, str(recorded)[:12], other.name, base=other)
    # Vouching is for a base that can't be looked at, not for another one.
    refused(BaseMismatchError, ours, other.name, base=other, trust_base=True)


def test_a_base_that_cannot_be_found(
    plain: Path, read: Read, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, base_model_name_or_path="/gone/tiny-base")
    refused(BaseNotFoundError, plain, "/gone/tiny-base", "base=", "trust_base=")
    spec = read(plain, trust_base=True).spec
    assert (spec.base, spec.base_fingerprint) == ("tiny-base", None)


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ("/home/someone/models/tiny", "tiny"),
        ("./out/tiny", "tiny"),
        ("../../out/tiny/", "tiny"),
        ("~/models/tiny", "tiny"),
        ("some/folder/within/tiny", "tiny"),
        ("C:\\Users\\someone\\tiny", "tiny"),
    ],
)
def test_no_machine_path_is_kept(
    plain: Path, named: str, kept: str, read: Read, change_config: ChangeConfig
) -> None:
    change_config(plain, base_model_name_or_path=named)
    assert read(plain, trust_base=True).spec.base == kept


def test_a_named_base_that_cannot_be_found(plain: Path, refused: Refused) -> None:
    for trust_base in (False, True):
        refused(BaseNotFoundError, plain, "/gone", base="/gone", trust_base=trust_base)


def test_a_folder_that_names_no_base(
    plain: Path, read: Read, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, base_model_name_or_path=None)
    refused(BaseNotFoundError, plain, "doesn't say on which base")
    assert read(plain, trust_base=True).spec.base_fingerprint is None


def test_a_base_that_is_no_base(plain: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "gpt2"}')
    refused(UnsupportedBaseError, plain, "gpt2", base=tmp_path / "base")


def test_a_base_of_another_size(plain: Path, base: Path, tmp_path: Path, refused: Refused) -> None:
    other = shutil.copytree(base, tmp_path / "wider")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    refused(TensorShapeError, plain, base=other)


def test_a_base_of_the_other_architecture(
    plain: Path, tiny_base: TinyBase, refused: Refused
) -> None:
    refused(TensorKeysError, plain, "lacks", base=tiny_base("bert"))
