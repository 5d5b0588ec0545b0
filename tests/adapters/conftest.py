from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest

from isogloss.adapters.files import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, read_adapter_folder
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import IsoglossError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from isogloss.adapters.files import CheckedFolder

    from ..conftest import PeftAdapter, TinyBase

# Each label has words of its own; the fillers are everybody's.
WORDS = {
    "delivery": ("parcel", "Bote", "посылка", "快递"),
    "payment": ("invoice", "Karte", "оплата", "发票"),
    "return": ("refund", "kaputt", "возврат", "退货"),
}
FILLERS = ("the", "my", "is", "please", "und", "bitte", "это", "мой", "请", "我的", "το", "μου")
# The tokenizer's trainer takes for a piece only what occurs in several words.
ENDINGS = ("", "s", "en", "ов", "的")
SEPARATORS = (" ", " ", " ", ", ")


def sentences(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Texts with their labels, in several scripts."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = [
            generator.choice(WORDS[label]) + generator.choice(ENDINGS)
            for _ in range(generator.randint(2, 4))
        ]
        words += [generator.choice(FILLERS) for _ in range(generator.randint(0, 3))]
        generator.shuffle(words)
        rows.append((generator.choice(SEPARATORS).join(words), label))
    return rows


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def labelled(rows: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in rows]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def labelled_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (96 rows), dev.jsonl (24) and test.jsonl (24)."""
    folder = tmp_path_factory.mktemp("labelled")
    for number, (split, count) in enumerate({"train": 96, "dev": 24, "test": 24}.items()):
        write_rows(folder / f"{split}.jsonl", labelled(sentences(count, seed=number)))
    return folder


@pytest.fixture(scope="session")
def plain_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pre-training: three locales, one of them small."""
    folder = tmp_path_factory.mktemp("plain")
    for number, (locale, count) in enumerate({"de": 220, "ru": 220, "el": 40}.items()):
        texts = [text for text, _ in sentences(count, seed=100 + number)]
        # No two lines are equal, so that none is dropped as a repetition.
        write_rows(
            folder / locale / "train.jsonl",
            ({"text": f"{text} {locale} {place}"} for place, text in enumerate(texts)),
        )
    return folder


@pytest.fixture(scope="session")
def pretraining_settings(plain_text: Path) -> dict[str, Any]:
    """A tiny pre-training run of 40 steps or so."""
    return {
        "data": (str(plain_text),),
        "vocab_size": 1000,
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "max_length": 48,
        "tokens": 10_000,
        "batch_tokens": 256,
        "learning_rate": 3e-3,
        "bag_weight": 1.0,
        "tokenizer_characters": 20_000,
        "checkpoint_steps": 10,
        "precision": "fp32",
    }


@pytest.fixture(scope="session")
def tiny_encoder(
    pretraining_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An encoder of our own making, good enough to learn on; its run folder lies beside it."""
    from isogloss.adapters.pretraining import PretrainingConfig, pretrain

    out = tmp_path_factory.mktemp("encoder") / "tiny"
    pretrain(PretrainingConfig(out=str(out), **pretraining_settings | {"tokens": 30_000}))
    return out


@pytest.fixture(scope="session")
def training_settings(tiny_encoder: Path, labelled_data: Path) -> dict[str, Any]:
    """Settings of a run of six epochs of three steps each."""
    return {
        "base": str(tiny_encoder),
        "locale": "gsw-CH",
        "task": "intent",
        "data": str(labelled_data),
        "rank": 4,
        "targets": ("query", "value", "dense"),
        "epochs": 6,
        "patience": 6,
        "batch_size": 32,  # a third of the rows
        "learning_rate": 1e-2,
        "device": "cpu",
        "precision": "fp32",
    }


class WeightsOf(Protocol):
    """The bytes of an adapter folder's weights file."""

    def __call__(self, folder: Path) -> bytes: ...


class SpecOf(Protocol):
    """What an adapter folder's `isogloss.json` says."""

    def __call__(self, folder: Path) -> AdapterSpec: ...


@pytest.fixture(scope="session")
def weights_of() -> WeightsOf:
    return lambda folder: (folder / WEIGHTS_FILE).read_bytes()


@pytest.fixture(scope="session")
def spec_of() -> SpecOf:
    return lambda folder: AdapterSpec.from_json((folder / SPEC_FILE).read_bytes())


class RunKilled(Protocol):
    """Runs a statement in a process of its own, and kills it (SIGKILL) after so many steps.

    A step is one call of `Progress.advance`. The statement gets its settings as `settings`.
    """

    def __call__(self, statement: str, settings: dict[str, Any], *, after: int) -> None: ...


@pytest.fixture
def run_killed(tmp_path: Path) -> RunKilled:
    def run(statement: str, settings: dict[str, Any], *, after: int) -> None:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps(settings))
        head = f"""
            import itertools, json, os, signal
            import torch
            from isogloss.core.progress import Progress

            torch.set_num_threads(1)
            steps = itertools.count(1)
            advance = Progress.advance

            def advance_or_die(self, amount=1, *, note=""):
                advance(self, amount, note=note)
                if next(steps) == {after}:
                    os.kill(os.getpid(), signal.SIGKILL)

            Progress.advance = advance_or_die
            with open({str(file)!r}) as file:
                settings = json.load(file)
        """
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"{textwrap.dedent(head)}\n{statement}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -9, done.stderr

    return run


class PeftLogits(Protocol):
    """Logits `[texts, labels]` of an adapter folder in plain PEFT; the base defaults to ours."""

    def __call__(self, folder: Path, texts: Sequence[str], *, base: str = "") -> torch.Tensor: ...


class EngineLogits(Protocol):
    """Logits `[texts, labels]` of an adapter folder in the engine that serves it."""

    def __call__(self, folder: Path, texts: Sequence[str], *, base: str) -> torch.Tensor: ...


@pytest.fixture
def peft_logits(tiny_encoder: Path) -> PeftLogits:
    def compute(folder: Path, texts: Sequence[str], *, base: str = "") -> torch.Tensor:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from isogloss.core.encoder import quiet_transformers

        labels = json.loads((folder / "isogloss.json").read_text())["labels"]
        with quiet_transformers(), warnings.catch_warnings():
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            model = AutoModelForSequenceClassification.from_pretrained(
                base or tiny_encoder, num_labels=len(labels), dtype=torch.float32
            )
            adapted = PeftModel.from_pretrained(model, str(folder)).eval()
        tokenizer = AutoTokenizer.from_pretrained(base or tiny_encoder)
        limit = locate_base(base or tiny_encoder).shape.max_tokens
        logits = []
        with torch.no_grad():
            for text in texts:
                row = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
                logits.append(adapted(**row).logits[0])
        return torch.stack(logits)

    return compute


@pytest.fixture
def engine_logits() -> EngineLogits:
    def compute(folder: Path, texts: Sequence[str], *, base: str) -> torch.Tensor:
        import torch

        from isogloss.adapters.heads import apply_heads
        from isogloss.adapters.loading import load_adapter
        from isogloss.core.delta import SlotImage
        from isogloss.core.encoder import load_encoder
        from isogloss.core.engine import Engine

        encoder = load_encoder(base, device="cpu")
        engine = Engine(encoder, slots=1)
        adapter = load_adapter(read_adapter_folder(folder, base=base).files, encoder)
        engine.bank.put(0, SlotImage.of(adapter.delta))
        rows = [replace(row, mix=((0, 1.0),)) for row, _ in encoder.tokenize(texts)]
        logits = apply_heads(*engine.forward(rows), [adapter.head] * len(rows))
        return torch.stack([row for row in logits if row is not None])

    return compute


# -- folders for test_files*.py, and what reads and changes them


class Read(Protocol):
    """Reads a plain folder for a locale and task."""

    def __call__(self, folder: Path, **options: Any) -> CheckedFolder: ...


class Refused(Protocol):
    """The folder is refused with this very class, on one line that has all parts."""

    def __call__(
        self, error: type[IsoglossError], folder: Path, *parts: str, **options: Any
    ) -> None: ...


class ChangeConfig(Protocol):
    """Sets entries of the `adapter_config.json` of a folder."""

    def __call__(self, folder: Path, **changes: Any) -> None: ...


@pytest.fixture(scope="module")
def base(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture(scope="module")
def written(base: Path, peft_adapter: PeftAdapter) -> Path:
    """A folder as PEFT writes it; tests change copies."""
    return peft_adapter(base, rank=4, labels=3)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, written: Path) -> Path:
    """A folder whose files are written over and over."""
    return shutil.copytree(written, tmp_path_factory.mktemp("damaged") / "adapter")


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
        rank=4,
        targets=("query", "value"),
        labels=("refund", "delivery", "other"),
        base=str(base),
        base_fingerprint=fingerprint(locate_base(base)).digest,
        metrics={"accuracy": 0.75},
    )
    (plain / SPEC_FILE).write_bytes(spec.to_json())
    return plain


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a pickle is a failure whatever else a test looks at."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture(scope="session")
def read() -> Read:
    def read_plain(folder: Path, **options: Any) -> CheckedFolder:
        return read_adapter_folder(folder, **({"locale": "gsw-CH", "task": "intent"} | options))

    return read_plain


@pytest.fixture(scope="session")
def refused(read: Read) -> Refused:
    def check(error: type[IsoglossError], folder: Path, *parts: str, **options: Any) -> None:
        with pytest.raises(IsoglossError) as caught:
            read(folder, **options)
        assert type(caught.value) is error, repr(caught.value)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 600
        for part in parts:
            assert part in message

    return check


@pytest.fixture(scope="session")
def change_config() -> ChangeConfig:
    def change(folder: Path, **changes: Any) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change
