from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, load_file, save_file

from isogloss.adapters.files import (
    CARD_FILE,
    CONFIG_FILE,
    SIZE_LIMITS,
    SPEC_FILE,
    WEIGHTS_FILE,
    CheckedFolder,
    read_adapter_folder,
)
from isogloss.adapters.spec import AdapterSpec
from isogloss.adapters.weights import read_header
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import (
    AdapterConfigError,
    AdapterError,
    AdapterFolderError,
    AdapterTooLargeError,
    BaseMismatchError,
    BaseNotFoundError,
    InputError,
    InvalidLocaleError,
    IsoglossError,
    LabelCountError,
    MalformedWeightsError,
    NonFiniteWeightsError,
    RankLimitError,
    TargetModulesError,
    TensorKeysError,
    TensorShapeError,
    UnsafeWeightsError,
    UnsupportedAdapterError,
    UnsupportedBaseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import PeftAdapter, TinyBase

WIDTH, LABELS, RANK = 16, 3, 4
TASK_TYPE = "sequence-classification"
QUERY = "base_model.model.roberta.encoder.layer.0.attention.self.query"
OUTPUT = "base_model.model.classifier.out_proj"


@pytest.fixture(scope="module")
def base(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture(scope="module")
def written(base: Path, peft_adapter: PeftAdapter) -> Path:
    """A folder as PEFT writes it; tests change copies."""
    return peft_adapter(base, rank=RANK, labels=LABELS)


@pytest.fixture
def plain(written: Path, tmp_path: Path) -> Path:
    """A copy of a plain PEFT folder."""
    return shutil.copytree(written, tmp_path / "adapter")


@pytest.fixture
def ours(plain: Path, base: Path) -> Path:
    """The same with an `isogloss.json`."""
    spec = AdapterSpec(
        locale="gsw-CH",
        task="intent",
        rank=RANK,
        targets=("query", "value"),
        labels=("refund", "delivery", "other"),
        base=str(base),
        base_fingerprint=fingerprint(locate_base(base)).digest,
        metrics={"accuracy": 0.75},
    )
    (plain / SPEC_FILE).write_bytes(spec.to_json())
    return plain


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a pickle is a failure whatever else a test looks at."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def read(folder: Path, **options: Any) -> CheckedFolder:
    """Read a plain folder for a locale and task."""
    return read_adapter_folder(folder, **({"locale": "gsw-CH", "task": "intent"} | options))


def refused(error: type[IsoglossError], folder: Path, *parts: str, **options: Any) -> None:
    """The folder is refused with this very class, on one line that has all parts."""
    with pytest.raises(IsoglossError) as caught:
        read(folder, **options)
    assert type(caught.value) is error, repr(caught.value)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_spec(folder: Path, **changes: Any) -> None:
    path = folder / SPEC_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / WEIGHTS_FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def header_of(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes of the tensors."""
    content = (folder / WEIGHTS_FILE).read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_weights(folder: Path, header: bytes | dict[str, Any], data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(raw).to_bytes(8, "little") + raw + data)


# -- what is taken


def test_a_plain_folder(plain: Path, base: Path) -> None:
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
    assert checked.files == before | {SPEC_FILE: spec.to_json()}
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
    spec = read_adapter_folder(ours, locale="de_ch", task="topic").spec
    assert (spec.locale, spec.task) == ("de-CH", "topic")


def test_labels_are_numbered_when_none_are_given(plain: Path) -> None:
    assert read(plain).spec.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_only_the_listed_files_are_taken(plain: Path, tmp_path: Path) -> None:
    (plain / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))
    (plain / "tokenizer.json").write_text("{}")
    (plain / "checkpoint-1").mkdir()
    (plain / "link").symlink_to(tmp_path)
    checked = read(plain)
    assert checked.left_out == ("checkpoint-1", "link", "tokenizer.json", "training_args.bin")
    assert set(checked.files) == {SPEC_FILE, CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}


def test_the_base_can_be_named(plain: Path, base: Path) -> None:
    change_config(plain, base_model_name_or_path="/gone")
    spec = read(plain, base=base).spec
    assert (spec.base, spec.base_fingerprint) == (
        base.name,
        fingerprint(locate_base(base)).digest,
    )


def test_bert_folders(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> None:
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


def test_no_folder(tmp_path: Path) -> None:
    refused(AdapterFolderError, tmp_path / "nowhere", "no adapter folder at", "nowhere")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_files(plain: Path, name: str) -> None:
    (plain / name).unlink()
    refused(AdapterFolderError, plain, f"holds no {name}")


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "pytorch_model.bin", "model.pt", "x.pkl", "last.ckpt"]
)
def test_weights_only_as_pickle(plain: Path, name: str) -> None:
    (plain / WEIGHTS_FILE).unlink()
    (plain / name).write_bytes(pickle.dumps({"weight": [1.0]}))
    refused(UnsafeWeightsError, plain, "only as pickle", name, "safetensors")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, SPEC_FILE])
def test_links_are_not_followed(ours: Path, name: str, tmp_path: Path) -> None:
    (ours / name).rename(tmp_path / "elsewhere")
    (ours / name).symlink_to(tmp_path / "elsewhere")
    refused(AdapterFolderError, ours, name, "not a link")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE])
def test_a_pipe_does_not_hang(plain: Path, name: str) -> None:
    (plain / name).unlink()
    os.mkfifo(plain / name)
    refused(AdapterFolderError, plain, name, "no regular file")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE])
def test_a_folder_in_the_place_of_a_file(plain: Path, name: str) -> None:
    (plain / name).unlink()
    (plain / name).mkdir()
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.is_dir() else 0
    refused(AdapterFolderError, plain, name, "no regular file")
    if opened.is_dir():
        assert len(list(opened.iterdir())) == before


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, SPEC_FILE])
def test_too_large(ours: Path, name: str) -> None:
    with (ours / name).open("r+b") as file:
        file.truncate(SIZE_LIMITS[name] + 1)  # sparse: takes no room on the disk
    refused(AdapterTooLargeError, ours, name, f"larger than {SIZE_LIMITS[name]:,} bytes")


# -- the config


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}"])
def test_a_config_that_is_no_json(plain: Path, content: bytes) -> None:
    (plain / CONFIG_FILE).write_bytes(content)
    refused(AdapterConfigError, plain, CONFIG_FILE, "not JSON")


@pytest.mark.parametrize("content", ["[]", "null", "1", '"LORA"'])
def test_a_config_that_is_no_object(plain: Path, content: str) -> None:
    (plain / CONFIG_FILE).write_text(content)
    refused(AdapterConfigError, plain, CONFIG_FILE, "not an object")


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "IA3", "ADALORA", "lora", None, ["LORA"]])
def test_other_kinds(plain: Path, kind: object) -> None:
    change_config(plain, peft_type=kind)
    refused(UnsupportedAdapterError, plain, f"peft_type is {kind!r}", "LORA")


def test_a_real_prefix_folder(base: Path, tmp_path: Path) -> None:
    from peft import PrefixTuningConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from isogloss.core.encoder import quiet_transformers

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    get_peft_model(model, config).save_pretrained(str(tmp_path / "prefix"))
    refused(UnsupportedAdapterError, tmp_path / "prefix", "peft_type is 'PREFIX_TUNING'")


@pytest.mark.parametrize("task_type", ["TOKEN_CLS", "FEATURE_EXTRACTION", "", None, ["SEQ_CLS"]])
def test_other_task_types(plain: Path, task_type: object) -> None:
    change_config(plain, task_type=task_type)
    refused(UnsupportedAdapterError, plain, f"task_type is {task_type!r}", "SEQ_CLS")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("rank_pattern", {"query": 8}),
        ("alpha_pattern", {"query": 8}),
        ("exclude_modules", ["value"]),
        ("layers_pattern", "layer"),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["weight"]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("monteclora_config", {"samples": 2}),
        ("alora_invocation_tokens", [1]),
    ],
)
def test_options_that_change_the_result(plain: Path, option: str, value: object) -> None:
    change_config(plain, **{option: value})
    refused(UnsupportedAdapterError, plain, f"{option} is {value!r}")


@pytest.mark.parametrize("bias", ["all", "lora_only", True])
def test_trained_biases(plain: Path, bias: object) -> None:
    change_config(plain, bias=bias)
    refused(UnsupportedAdapterError, plain, f"bias is {bias!r}", "bias='none'")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_first_weights_that_change_the_base(plain: Path, init: str) -> None:
    change_config(plain, init_lora_weights=init)
    refused(UnsupportedAdapterError, plain, f"init_lora_weights is {init!r}", "base's own weights")


@pytest.mark.parametrize(
    "saved", [["classifier", "embeddings"], ["pooler"], "classifier", 5, [["classifier"]]]
)
def test_other_modules_that_were_saved(plain: Path, saved: object) -> None:
    change_config(plain, modules_to_save=saved)
    refused(UnsupportedAdapterError, plain, f"modules_to_save is {saved}")


@pytest.mark.parametrize("rank", [0, -1, 513, 10**9, 10**400])
def test_ranks_outside_the_limits(plain: Path, rank: int) -> None:
    change_config(plain, r=rank)
    refused(RankLimitError, plain, "it must lie in 1..512")


@pytest.mark.parametrize("rank", ["4", None, 4.0, True, [4]])
def test_ranks_that_are_no_integers(plain: Path, rank: object) -> None:
    change_config(plain, r=rank)
    refused(AdapterConfigError, plain, f"r is {rank!r}", "expected an integer")


@pytest.mark.parametrize(
    "alpha", ["8", None, True, float("nan"), float("inf"), 10**400, [8]], ids=lambda a: str(a)[:5]
)
def test_an_alpha_that_is_no_number(plain: Path, alpha: object) -> None:
    change_config(plain, lora_alpha=alpha)
    refused(AdapterConfigError, plain, "lora_alpha is", "expected a finite number")


@pytest.mark.parametrize("target", ["lm_head", "word_embeddings", "uery", "pooler.dense", ""])
def test_unknown_targets(plain: Path, target: str) -> None:
    change_config(plain, target_modules=["query", target])
    refused(TargetModulesError, plain, repr(target), "dense, key, query, value")


@pytest.mark.parametrize("targets", [r".*\.query", "query", None, [], [1], {"query": 1}])
def test_targets_that_are_no_list_of_names(plain: Path, targets: object) -> None:
    change_config(plain, target_modules=targets)
    refused(TargetModulesError, plain, "expected a list of names")


def test_only_the_head_as_target(plain: Path) -> None:
    change_config(plain, target_modules=["classifier.dense"])
    refused(TargetModulesError, plain, "leave nothing to change")


@pytest.mark.parametrize("layers", [[2], 7, [-1]])
def test_layers_that_the_base_lacks(plain: Path, layers: object) -> None:
    change_config(plain, layers_to_transform=layers)
    refused(TargetModulesError, plain, "the base has layers 0..1")


@pytest.mark.parametrize("layers", ["0", [None], [0, "1"], [True], {"0": 1}, 1.0])
def test_layers_that_are_no_integers(plain: Path, layers: object) -> None:
    change_config(plain, layers_to_transform=layers)
    refused(AdapterConfigError, plain, "layers_to_transform is", "expected integers")


# -- the weights file


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated(plain: Path, keep: int) -> None:
    path = plain / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    refused(MalformedWeightsError, plain, WEIGHTS_FILE, "damaged")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 9 << 20, 100_000])
def test_a_header_longer_than_the_file(plain: Path, size: int) -> None:
    path = plain / WEIGHTS_FILE
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(MalformedWeightsError, plain, f"its header has {size:,} bytes")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff{}",
        '{"__metadata__": {}}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"9" * 5_000,
    ],
    ids=["empty", "cut", "deep", "deep-objects", "bytes", "utf-16", "bom", "number"],
)
def test_a_header_that_cannot_be_read(plain: Path, header: bytes) -> None:
    write_weights(plain, header, b"")
    refused(MalformedWeightsError, plain, "its header can't be read")


@pytest.mark.parametrize("header", [b"[]", b"null", b"7", b'"x"'])
def test_a_header_that_is_no_object(plain: Path, header: bytes) -> None:
    write_weights(plain, header, b"")
    refused(MalformedWeightsError, plain, "no JSON object")


def test_a_key_that_occurs_twice(plain: Path) -> None:
    header, data = header_of(plain)
    entry = json.dumps(header[f"{OUTPUT}.bias"])
    doubled = json.dumps(header)[:-1] + f', "{OUTPUT}.bias": {entry}}}'
    write_weights(plain, doubled.encode(), data)
    refused(MalformedWeightsError, plain, "a key occurs twice")


@pytest.mark.parametrize("metadata", [[], "pt", {"format": 1}, {"format": {}}, 1])
def test_metadata_that_are_no_strings(plain: Path, metadata: object) -> None:
    header, data = header_of(plain)
    write_weights(plain, header | {"__metadata__": metadata}, data)
    refused(MalformedWeightsError, plain, "metadata")


def test_overlapping_tensors(plain: Path) -> None:
    header, data = header_of(plain)
    header[f"{QUERY}.lora_B.weight"]["data_offsets"] = header[f"{QUERY}.lora_A.weight"][
        "data_offsets"
    ]
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, "begins at byte", "expected")


def test_a_gap_between_tensors(plain: Path) -> None:
    header, data = header_of(plain)
    first = min(entry["data_offsets"][0] for key, entry in header.items() if key[0] != "_")
    for key, entry in header.items():
        if key != "__metadata__" and entry["data_offsets"][0] > first:
            entry["data_offsets"] = [at + 4 for at in entry["data_offsets"]]
    write_weights(plain, header, data + b"\0" * 4)
    refused(MalformedWeightsError, plain, "begins at byte", "expected")


def test_trailing_bytes(plain: Path) -> None:
    with (plain / WEIGHTS_FILE).open("ab") as file:
        file.write(b"PK\x03\x04")
    refused(MalformedWeightsError, plain, "its tensors end at byte")


@pytest.mark.parametrize("dtype", ["I64", "F64", "U8", "BOOL", "F8_E4M3", "f32", "", None, 5])
def test_other_data_types(plain: Path, dtype: object) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"]["dtype"] = dtype
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", str(dtype), "F32, F16, BF16")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [3.0]),
        ("shape", [-3]),
        ("shape", "3"),
        ("shape", None),
        ("shape", [True]),
        ("data_offsets", [0]),
        ("data_offsets", [0, 4, 8]),
        ("data_offsets", [0, "12"]),
        ("data_offsets", [-12, 0]),
        ("data_offsets", {"begin": 0}),
    ],
)
def test_entries_that_make_no_sense(plain: Path, field: str, value: object) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"][field] = value
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", "lacks or misstates a field")


@pytest.mark.parametrize("shape", [[4], [0], [2**62, 2**62], [3, 0], [], [10**200]])
def test_a_shape_that_its_bytes_do_not_fill(plain: Path, shape: list[int]) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"]["shape"] = shape
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", "has 12 bytes")


def test_too_many_tensors(plain: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_weights(plain, {str(number): entry for number in range(20_001)}, b"")
    refused(MalformedWeightsError, plain, "20,001 tensors")


# -- tensors


@pytest.mark.parametrize(
    "name", [f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight", f"{OUTPUT}.bias"]
)
def test_missing_tensors(plain: Path, name: str) -> None:
    change_tensors(plain, lambda tensors: tensors.pop(name))
    refused(TensorKeysError, plain, "lacks 1 tensors", name)


@pytest.mark.parametrize(
    "name",
    [
        f"{QUERY}.lora_magnitude_vector",
        "base_model.model.roberta.embeddings.word_embeddings.weight",
        "base_model.model.roberta.encoder.layer.9.attention.self.query.lora_A.weight",
        "x",
    ],
)
def test_extra_tensors(plain: Path, name: str) -> None:
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(3, np.float32)}))
    refused(TensorKeysError, plain, "has 1 that the config doesn't account for", name)


def test_no_head(plain: Path) -> None:
    def without_head(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "classifier" in name]:
            del tensors[name]

    change_tensors(plain, without_head)
    refused(TensorKeysError, plain, "no classification head", "SEQ_CLS")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{QUERY}.lora_A.weight", (RANK + 1, WIDTH)),
        (f"{QUERY}.lora_A.weight", (WIDTH, RANK)),
        (f"{QUERY}.lora_B.weight", (WIDTH, RANK, 1)),
        (f"{QUERY}.lora_B.weight", ()),
        (f"{OUTPUT}.weight", (LABELS, WIDTH + 1)),
        (f"{OUTPUT}.bias", (LABELS + 1,)),
    ],
)
def test_wrong_shapes(plain: Path, name: str, shape: tuple[int, ...]) -> None:
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(shape, np.float32)}))
    refused(TensorShapeError, plain, name, f"is {list(shape)}")


def test_a_rank_other_than_the_configs(plain: Path) -> None:
    change_config(plain, r=RANK * 2)
    refused(TensorShapeError, plain, f"is [{RANK}, {WIDTH}]", f"need [{RANK * 2}, {WIDTH}]")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", [f"{QUERY}.lora_B.weight", f"{OUTPUT}.bias"])
def test_values_that_are_not_finite(plain: Path, name: str, dtype: Any, value: float) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors[name].astype(dtype)
        tensors[name].flat[-1] = value

    change_tensors(plain, spoil)
    refused(NonFiniteWeightsError, plain, name, "NaN or infinity")


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80, 0x7F81])
def test_bf16_values_that_are_not_finite(plain: Path, bits: int) -> None:
    name = f"{QUERY}.lora_A.weight"
    _as_bf16(plain, name, last=0x7F7F)  # the largest finite one
    read(plain)
    _as_bf16(plain, name, last=bits)
    refused(NonFiniteWeightsError, plain, name)


def _as_bf16(folder: Path, name: str, *, last: int) -> None:
    """Make the first tensor of that name bf16, which numpy doesn't have."""
    header, data = header_of(folder)
    begin, end = header[name]["data_offsets"]
    if header[name]["dtype"] == "F32":
        values = np.frombuffer(data[begin:end], "<u4")
        new = (values >> 16).astype("<u2")
        saved = (end - begin) // 2
        for key, entry in header.items():
            if key != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at - saved for at in entry["data_offsets"]]
        header[name] |= {"dtype": "BF16", "data_offsets": [begin, end - saved]}
    else:
        new = np.frombuffer(data[begin:end], "<u2").copy()
    new[-1] = last
    write_weights(folder, header, data[:begin] + new.tobytes() + data[end:])


def test_extreme_but_finite_values_pass(plain: Path) -> None:
    largest = np.finfo(np.float32).max

    def change(tensors: dict[str, Any]) -> None:
        tensors[f"{OUTPUT}.bias"][:] = [largest, -largest, np.finfo(np.float32).smallest_subnormal]

    change_tensors(plain, change)
    read(plain)


# -- labels


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c", "d"]])
def test_labels_and_head_differ(plain: Path, labels: list[str]) -> None:
    refused(LabelCountError, plain, f"{len(labels)} labels", "3 outputs", labels=labels)


def test_repeated_labels(plain: Path, ours: Path) -> None:
    change_spec(ours, labels=["a", "b", "a"])
    refused(LabelCountError, ours, "label 'a' occurs twice")
    (plain / SPEC_FILE).unlink()
    refused(LabelCountError, plain, "label 'b' occurs twice", labels=["a", "b", "b"])


def test_more_outputs_than_anyone_needs(plain: Path) -> None:
    outputs = 10_001

    def widen(tensors: dict[str, Any]) -> None:
        tensors[f"{OUTPUT}.weight"] = np.ones((outputs, WIDTH), np.float32)
        tensors[f"{OUTPUT}.bias"] = np.ones(outputs, np.float32)

    change_tensors(plain, widen)
    refused(LabelCountError, plain, "10,001 outputs", "10,000 is the limit")


@pytest.mark.parametrize("label", ["\ud800", 1, None, b"a"])
def test_labels_that_are_no_text(plain: Path, label: Any) -> None:
    refused(AdapterConfigError, plain, "labels", labels=["a", "b", label])


# -- the base


def test_another_base_of_the_same_shape(ours: Path, tiny_base: TinyBase) -> None:
    other = tiny_base("xlm-roberta", seed=1)
    recorded = AdapterSpec.from_json((ours / SPEC_FILE).read_bytes()).base_fingerprint
    refused(BaseMismatchError, ours, str(recorded)[:12], other.name, base=other)
    # Vouching is for a base that can't be looked at, not for another one.
    refused(BaseMismatchError, ours, other.name, base=other, trust_base=True)


def test_a_base_that_cannot_be_found(plain: Path) -> None:
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
def test_no_machine_path_is_kept(plain: Path, named: str, kept: str) -> None:
    change_config(plain, base_model_name_or_path=named)
    assert read(plain, trust_base=True).spec.base == kept


def test_a_named_base_that_cannot_be_found(plain: Path) -> None:
    for trust_base in (False, True):
        refused(BaseNotFoundError, plain, "/gone", base="/gone", trust_base=trust_base)


def test_a_folder_that_names_no_base(plain: Path) -> None:
    change_config(plain, base_model_name_or_path=None)
    refused(BaseNotFoundError, plain, "doesn't say on which base")
    assert read(plain, trust_base=True).spec.base_fingerprint is None


def test_a_base_that_is_no_base(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "gpt2"}')
    refused(UnsupportedBaseError, plain, "gpt2", base=tmp_path / "base")


def test_a_base_of_another_size(plain: Path, base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "wider")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    refused(TensorShapeError, plain, base=other)


def test_a_base_of_the_other_architecture(plain: Path, tiny_base: TinyBase) -> None:
    refused(TensorKeysError, plain, "lacks", base=tiny_base("bert"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{QUERY}.lora_A.weight", ()),
        ("base_model.model.roberta.encoder.layer.0.intermediate.dense.lora_B.weight", ()),
        ("base_model.model.roberta.encoder.layer.999999999.attention.self.query.x", (1,)),
        (f"base_model.model.{'9' * 5_000}", (1,)),
        (f"base_model.model.{'²' * 3}", (1,)),
    ],
    ids=["query", "intermediate", "layers", "digits", "superscripts"],
)
def test_a_base_nobody_can_look_at_and_odd_tensors(
    plain: Path, name: str, shape: tuple[int, ...]
) -> None:
    change_config(plain, base_model_name_or_path=None)
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(shape, np.float32)}))
    with pytest.raises((TensorShapeError, TensorKeysError)):
        read(plain, trust_base=True)


# -- isogloss.json, locale and task


@pytest.mark.parametrize(
    "given", [{}, {"locale": "gsw-CH"}, {"task": "intent"}], ids=["neither", "locale", "task"]
)
def test_a_plain_folder_needs_locale_and_task(plain: Path, given: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"no isogloss\.json.*--locale, --task"):
        read_adapter_folder(plain, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("locale", ["", "english", "de-", "x", "de_CH_", "a" * 300])
def test_a_locale_that_is_none(plain: Path, ours: Path, locale: str) -> None:
    refused(InvalidLocaleError, ours, locale=locale)
    (plain / SPEC_FILE).unlink()
    refused(InvalidLocaleError, plain, locale=locale)


@pytest.mark.parametrize("task", ["", "Intent", "a b", "../intent", "-x", "a" * 65])
def test_a_task_that_is_no_name(plain: Path, ours: Path, task: str) -> None:
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
def test_an_isogloss_json_that_is_none(ours: Path, content: bytes) -> None:
    (ours / SPEC_FILE).write_bytes(content)
    refused(AdapterConfigError, ours, SPEC_FILE)


def test_what_was_recorded_wrongly_is_put_right(ours: Path) -> None:
    """Rank, targets and head are what the config and the tensors say."""
    change_spec(ours, rank=99, targets=["nothing"], head="no-such-head")
    spec = read_adapter_folder(ours).spec
    assert (spec.rank, spec.targets) == (RANK, ("query", "value"))
    assert spec.head == "xlm-roberta-classification"


# -- any damage at all


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, written: Path) -> Path:
    """A folder whose weights are written over and over."""
    return shutil.copytree(written, tmp_path_factory.mktemp("damaged") / "adapter")


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    flips = draw(
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4)
    )
    # Half of the flips go to the header, which is a small part of the file.
    in_header = draw(st.booleans())
    cut = draw(st.none() | st.floats(0, 1))
    added = draw(st.binary(max_size=8))

    def apply(content: bytes) -> bytes:
        size = 8 + int.from_bytes(content[:8], "little") if in_header else len(content)
        changed = bytearray(content)
        for place, bit in flips:
            changed[int(place * size)] ^= 1 << bit
        if cut is not None:
            del changed[int(cut * len(changed)) :]
        return bytes(changed) + added

    return apply


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(change=damage())
def test_damaged_weights_pass_all_checks_or_raise_an_adapter_error(
    workplace: Path, written: Path, change: Callable[[bytes], bytes]
) -> None:
    content = change((written / WEIGHTS_FILE).read_bytes())
    (workplace / WEIGHTS_FILE).write_bytes(content)
    try:
        checked = read(workplace)
    except AdapterError as error:
        assert "\n" not in str(error)
        return
    tensors = load(checked.files[WEIGHTS_FILE])
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert checked.spec.rank == RANK


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_config_is_read_or_raises_an_error_of_ours(
    workplace: Path, written: Path, base: Path, data: st.DataObject
) -> None:
    shutil.copy(written / WEIGHTS_FILE, workplace)
    config = json.loads((written / CONFIG_FILE).read_text())
    keys = data.draw(st.sets(st.sampled_from(sorted(config)), max_size=2))
    changed = config | {key: data.draw(JSON) for key in sorted(keys)}
    (workplace / CONFIG_FILE).write_text(json.dumps(changed))
    try:
        read(workplace, base=base)
    except IsoglossError as error:
        assert "\n" not in str(error)
    finally:
        shutil.copy(written / CONFIG_FILE, workplace)


# Lone surrogates too, which JSON can write and Unicode can't.
ANY_TEXT = st.text(st.characters() | st.just("\ud800"), max_size=4)


@settings(max_examples=250, deadline=None)
@given(
    names=st.lists(ANY_TEXT, min_size=1, max_size=3, unique=True),
    metadata=st.none() | st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers(), max_size=2),
    before=st.sampled_from(["", " ", "\n", "\t"]),
    after=st.sampled_from(["", " ", "\n\n", "x"]),
)
def test_what_our_reader_takes_safetensors_takes(
    names: list[str], metadata: dict[str, Any] | None, before: str, after: str
) -> None:
    """What has been checked must also load, with the same tensors."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    for place, name in enumerate(names):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * place, 4 * place + 4]}
    raw = (before + json.dumps(header) + after).encode()
    content = len(raw).to_bytes(8, "little") + raw + b"\0" * 4 * len(names)
    try:
        tensors = read_header(content)
    except MalformedWeightsError:
        return
    assert load(content).keys() == tensors.keys()
