from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.files import (
    CARD_FILE,
    CONFIG_FILE,
    SIZE_LIMITS,
    SPEC_FILE,
    WEIGHTS_FILE,
    read_adapter_folder,
)
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import (
    AdapterConfigError,
    AdapterFolderError,
    AdapterTooLargeError,
    BaseMismatchError,
    BaseNotFoundError,
    InputError,
    InvalidLocaleError,
    IsoglossError,
    LabelCountError,
    UnsafeWeightsError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from ..conftest import PeftAdapter, TinyBase
    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")
RANK = 4
TASK_TYPE = "sequence-classification"


def change_spec(folder: Path, **changes: Any) -> None:
    path = folder / SPEC_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- what is taken


def test_a_plain_folder(plain: Path, base: Path, read: Read) -> None:
    before = {path.name: path.read_bytes() for path in plain.iterdir()}
    checked = read(plain, labels=["a", "b", "c"])
    spec = checked.spec
    assert (spec.locale, spec.task, spec.task_type) == ("gsw-CH", "intent", TASK_TYPE)
    assert (spec.kind, spec.rank, spec.targets) == ("lora", RANK, ("query", "value"))
    assert spec.labels == ("a", "b", "c")
    assert spec.head == "xlm-roberta-classification"
    # The folder's own name, not its path.
    assert (spec.base, spec.base_fingerprint) == (
        base.name,
        fingerprint(locate_base(base)).digest,
    )
    # All as it came, but for the base's path.
    assert set(checked.files) == set(before) | {SPEC_FILE}
    assert checked.files[SPEC_FILE] == spec.to_json()
    assert checked.files[WEIGHTS_FILE] == before[WEIGHTS_FILE]
    config = json.loads(before[CONFIG_FILE])
    assert config["base_model_name_or_path"] == str(base)
    kept = config | {"base_model_name_or_path": base.name}
    assert json.loads(checked.files[CONFIG_FILE]) == kept
    assert str(base) not in str(checked.files)
    assert checked.left_out == ()
    # Reading changes nothing.
    assert {path.name: path.read_bytes() for path in plain.iterdir()} == before


def test_our_own_folder(ours: Path) -> None:
    checked = read_adapter_folder(ours)
    recorded = AdapterSpec.from_json((ours / SPEC_FILE).read_bytes())
    assert checked.spec.labels == recorded.labels
    assert checked.spec.metrics == {"accuracy": 0.75}
    assert checked.spec.base_fingerprint == recorded.base_fingerprint
    assert AdapterSpec.from_json(checked.files[SPEC_FILE]) == checked.spec


def test_locale_and_task_can_be_given_anew(ours: Path) -> None:
    (ours / CARD_FILE).write_text("for gsw-CH")
    checked = read_adapter_folder(ours, locale="de_ch", task="topic")
    assert (checked.spec.locale, checked.spec.task) == ("de-CH", "topic")
    assert b"# topic/de-CH" in checked.files[CARD_FILE]
    assert read_adapter_folder(ours, locale="gsw-CH").files[CARD_FILE] == b"for gsw-CH"


def test_a_card_without_a_path_is_kept(
    plain: Path, base: Path, read: Read, change_config: ChangeConfig
) -> None:
    card = b"---\nbase_model: FacebookAI/xlm-roberta-base\n---\n"
    (plain / CARD_FILE).write_bytes(card)
    assert read(plain).files[CARD_FILE] == card
    change_config(plain, base_model_name_or_path="FacebookAI/xlm-roberta-base")
    assert read(plain, base=base).files[CARD_FILE] == card


def test_labels_are_numbered_when_none_are_given(plain: Path, read: Read) -> None:
    assert read(plain).spec.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_only_the_listed_files_are_taken(plain: Path, tmp_path: Path, read: Read) -> None:
    (plain / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))
    (plain / "tokenizer.json").write_text("{}")
    (plain / "checkpoint-1").mkdir()
    (plain / "link").symlink_to(tmp_path)
    checked = read(plain)
    assert checked.left_out == ("checkpoint-1", "link", "tokenizer.json", "training_args.bin")
    assert set(checked.files) == {SPEC_FILE, CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}


def test_the_base_can_be_named(
    plain: Path, base: Path, read: Read, change_config: ChangeConfig
) -> None:
    change_config(plain, base_model_name_or_path="/gone")
    spec = read(plain, base=base).spec
    assert (spec.base, spec.base_fingerprint) == (
        base.name,
        fingerprint(locate_base(base)).digest,
    )


def test_bert_folders(tiny_base: TinyBase, peft_adapter: PeftAdapter, read: Read) -> None:
    folder = peft_adapter(tiny_base("bert"), targets="all-linear", labels=5)
    spec = read(folder).spec
    assert (spec.head, len(spec.labels)) == ("bert-classification", 5)


def test_nothing_imports_torch_and_no_pickle_is_read(plain: Path) -> None:
    code = """
import pickle, sys
from pathlib import Path
def refuse(*_, **__): raise SystemExit("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = refuse
from isogloss.adapters.files import read_adapter_folder
read_adapter_folder(Path(sys.argv[1]), locale="gsw-CH", task="intent")
print(sorted({"torch", "transformers", "peft"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(plain)],
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# -- files


def test_no_folder(tmp_path: Path, refused: Refused) -> None:
    refused(AdapterFolderError, tmp_path / "nowhere", "no adapter folder at", "nowhere")


def test_a_folder_name_that_is_too_long(refused: Refused) -> None:
    refused(AdapterFolderError, Path("x" * 300), "can't be read (File name too long)")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_files(plain: Path, name: str, refused: Refused) -> None:
    (plain / name).unlink()
    refused(AdapterFolderError, plain, f"holds no {name}")


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "pytorch_model.bin", "model.pt", "x.pkl", "last.ckpt"]
)
def test_weights_only_as_pickle(plain: Path, name: str, refused: Refused) -> None:
    (plain / WEIGHTS_FILE).unlink()
    (plain / name).write_bytes(pickle.dumps({"weight": [1.0]}))
    refused(UnsafeWeightsError, plain, "only as pickle", name, "safetensors")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, SPEC_FILE])
def test_links_are_not_followed(ours: Path, name: str, tmp_path: Path, refused: Refused) -> None:
    (ours / name).rename(tmp_path / "elsewhere")
    (ours / name).symlink_to(tmp_path / "elsewhere")
    refused(AdapterFolderError, ours, name, "not a link")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE])
def test_a_pipe_does_not_hang(plain: Path, name: str, refused: Refused) -> None:
    (plain / name).unlink()
    os.mkfifo(plain / name)
    refused(AdapterFolderError, plain, name, "no regular file")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE])
def test_a_folder_in_the_place_of_a_file(plain: Path, name: str, refused: Refused) -> None:
    (plain / name).unlink()
    (plain / name).mkdir()
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.is_dir() else 0
    refused(AdapterFolderError, plain, name, "no regular file")
    if opened.is_dir():
        assert len(list(opened.iterdir())) == before


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, SPEC_FILE])
def test_too_large(ours: Path, name: str, refused: Refused) -> None:
    with (ours / name).open("r+b") as file:
        file.truncate(SIZE_LIMITS[name] + 1)  # sparse: takes no room on the disk
    refused(AdapterTooLargeError, ours, name, f"larger than {SIZE_LIMITS[name]:,} bytes")


# -- isogloss.json, locale and task


@pytest.mark.parametrize(
    "given", [{}, {"locale": "gsw-CH"}, {"task": "intent"}], ids=["neither", "locale", "task"]
)
def test_a_plain_folder_needs_locale_and_task(plain: Path, given: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"no isogloss\.json.*--locale, --task"):
        read_adapter_folder(plain, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("locale", ["", "english", "de-", "x", "de_CH_", "a" * 300])
def test_a_locale_that_is_none(plain: Path, ours: Path, locale: str, refused: Refused) -> None:
    refused(InvalidLocaleError, ours, locale=locale)
    (plain / SPEC_FILE).unlink()
    refused(InvalidLocaleError, plain, locale=locale)


@pytest.mark.parametrize("task", ["", "Intent", "a b", "../intent", "-x", "a" * 65])
def test_a_task_that_is_no_name(plain: Path, ours: Path, task: str, refused: Refused) -> None:
    refused(AdapterConfigError, ours, "task", task=task)
    (plain / SPEC_FILE).unlink()
    refused(AdapterConfigError, plain, "task", task=task)


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"surprise": 1}, AdapterConfigError, "surprise"),
        ({"locale": "not a locale"}, InvalidLocaleError, "not a locale"),
        ({"locale": "GSW-ch"}, AdapterConfigError, "gsw-CH"),
        ({"locale": "zh_hant_hk"}, AdapterConfigError, "canonical form is zh-Hant-HK"),
        ({"locale": None}, AdapterConfigError, "locale"),
        ({"task": "No Task"}, AdapterConfigError, "task"),
        ({"format": 2}, AdapterConfigError, "format"),
        ({"base_fingerprint": "0" * 63}, AdapterConfigError, "base_fingerprint"),
        ({"labels": "abc"}, AdapterConfigError, "labels"),
        ({"kind": "prefix"}, UnsupportedAdapterError, "kind is 'prefix'"),
        ({"kind": "other"}, AdapterConfigError, "kind"),
        ({"task_type": "token-classification"}, UnsupportedAdapterError, "token-classification"),
        ({"labels": ["a", "b"]}, LabelCountError, "2 labels"),
        ({"base": "/gone"}, BaseNotFoundError, "/gone"),
        ({"base_fingerprint": "0" * 64}, BaseMismatchError, "000000000000"),
    ],
)
def test_an_isogloss_json_that_misstates(
    ours: Path, changes: dict[str, Any], error: type[IsoglossError], part: str
) -> None:
    change_spec(ours, **changes)
    with pytest.raises(IsoglossError) as caught:
        read_adapter_folder(ours)
    assert type(caught.value) is error
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_an_isogloss_json_that_is_none(ours: Path, content: bytes, refused: Refused) -> None:
    (ours / SPEC_FILE).write_bytes(content)
    refused(AdapterConfigError, ours, SPEC_FILE)


def test_what_was_recorded_wrongly_is_put_right(ours: Path) -> None:
    """Rank, targets and head are what the config and the tensors say."""
    change_spec(ours, rank=99, targets=["nothing"], head="no-such-head")
    spec = read_adapter_folder(ours).spec
    assert (spec.rank, spec.targets) == (RANK, ("query", "value"))
    assert spec.head == "xlm-roberta-classification"


# -- labels


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c", "d"]])
def test_labels_and_head_differ(plain: Path, labels: list[str], refused: Refused) -> None:
    refused(LabelCountError, plain, f"{len(labels)} labels", "3 outputs", labels=labels)


def test_labels_other_than_those_recorded(ours: Path, refused: Refused) -> None:
    labels = ["refund", "delivery", "other"]
    assert read_adapter_folder(ours, labels=labels).spec.labels == tuple(labels)
    labels.reverse()
    refused(LabelCountError, ours, "'other', 'delivery'", "'delivery', 'other'", labels=labels)


def test_a_label_without_a_name(plain: Path, refused: Refused) -> None:
    refused(InputError, plain, "['a', '', 'b']", labels=["a", "", "b"])


def test_repeated_labels(plain: Path, ours: Path, refused: Refused) -> None:
    change_spec(ours, labels=["a", "b", "a"])
    refused(LabelCountError, ours, "label 'a' occurs twice")
    (plain / SPEC_FILE).unlink()
    refused(LabelCountError, plain, "label 'b' occurs twice", labels=["a", "b", "b"])


@pytest.mark.parametrize("label", ["\ud800", 1, None, b"a"])
def test_labels_that_are_no_text(plain: Path, label: Any, refused: Refused) -> None:
    refused(AdapterConfigError, plain, "labels", labels=["a", "b", label])
