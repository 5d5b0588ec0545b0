from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import load_file, save_file

from isogloss.core.errors import (
    BaseMismatchError,
    BaseNotFoundError,
    GateError,
    SmokeTestError,
    UnknownLabelError,
)
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isogloss.registry import Version

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as opened:
        yield opened


@pytest.fixture(params=["xlm-roberta", "bert"])
def whole_base(request: pytest.FixtureRequest, tiny_base: Any) -> Path:
    """A base that can be loaded."""
    folder: Path = tiny_base(request.param)
    return folder


def publish(registry: Registry, folder: Path, base: Path, **options: Any) -> Version:
    return registry.publish(folder, locale="de", task="t", base=base, **options)


def loud(folder: Path, target: Path) -> Path:
    """The same adapter with finite weights whose products are not."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(target / WEIGHTS)
    for name in tensors:
        if name.endswith(("lora_B.weight", "lora_A.weight")):
            tensors[name] *= 1e30
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    "options",
    [
        {"task_type": "SEQ_CLS"},
        {"task_type": "TOKEN_CLS"},
        {"task_type": "QUESTION_ANS"},
        {"task_type": "FEATURE_EXTRACTION"},
        {"task_type": "SEQ_CLS", "labels": 1},
        {"task_type": "SEQ_CLS", "kind": "prefix"},
        {"task_type": "SEQ_CLS", "rank": 16, "targets": "all-linear"},
    ],
)
def test_good_versions_of_every_task_become_production(
    registry: Registry, peft_adapter: Any, whole_base: Path, options: dict[str, Any]
) -> None:
    version = publish(registry, peft_adapter(whole_base, **options), whole_base)
    (change,) = registry.history("de", "t")
    assert (change.digest, change.reason) == (version.digest, None)


def test_a_version_that_answers_with_no_numbers(
    registry: Registry, peft_adapter: Any, whole_base: Path, tmp_path: Path
) -> None:
    good = publish(registry, peft_adapter(whole_base), whole_base)
    folder = loud(peft_adapter(whole_base), tmp_path / "loud")
    with pytest.raises(SmokeTestError, match="answers with NaN or infinity on its own base"):
        publish(registry, folder, whole_base)
    assert registry.versions() == [good]
    # Elsewhere it may be looked at, but it doesn't get any further.
    bad = publish(registry, folder, whole_base, alias="canary")
    with pytest.raises(SmokeTestError):
        registry.promote(bad)
    assert registry.resolve("de", "t").version == good
    registry.promote(bad, smoke=False, reason="to see what happens")
    assert registry.history("de", "t")[0].reason == "to see what happens; no smoke forward"
    registry.promote(good)
    assert registry.history("de", "t")[0].reason is None


def test_a_base_that_is_not_on_this_machine(
    registry: Registry, peft_adapter: Any, tiny_base: Any, tmp_path: Path
) -> None:
    base, other = tiny_base("xlm-roberta"), tiny_base("xlm-roberta", seed=3)
    version = publish(registry, peft_adapter(base), base, alias="canary")
    with Registry.open(tmp_path / "registry") as elsewhere:
        elsewhere.promote(version)
        reason = elsewhere.history("de", "t")[0].reason
        assert reason == (
            f"no smoke forward: the base {base.name!r} of {version.name} is not on this machine; "
            "name it (--base)"
        )
        second = publish(elsewhere, peft_adapter(base), base, alias="canary")
        with pytest.raises(BaseMismatchError):
            elsewhere.promote(second, base=other)
        with pytest.raises(BaseNotFoundError):
            elsewhere.promote(second, base=tmp_path / "absent")
        assert elsewhere.resolve("de", "t").version == version
        elsewhere.promote(second, base=base)
        assert elsewhere.history("de", "t")[0].reason is None


def test_a_base_that_can_not_be_loaded(registry: Registry, base: Path, make_adapter: Any) -> None:
    publish(registry, make_adapter(), base)
    reason = registry.history("de", "t")[0].reason
    assert reason is not None
    assert reason.startswith("no smoke forward: ")
    assert "can't be loaded" in reason


def test_gates_on_data(
    registry: Registry, peft_adapter: Any, whole_base: Path, tmp_path: Path
) -> None:
    from isogloss.adapters.evaluation import evaluate

    data = tmp_path / "dev.jsonl"
    rows = [
        {
            "text": f"wo isch mys päckli {number} {'!' * (number % 7)}",
            "label": f"LABEL_{(0, 0, 0, 1, 1, 2)[number % 6]}",
        }
        for number in range(60)
    ]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    folders = [peft_adapter(whole_base) for _ in range(8)]
    scores = [
        evaluate(folder, data, base=str(whole_base)).metrics["accuracy"] for folder in folders
    ]
    ranked = sorted(zip(scores, folders, strict=True), key=lambda pair: pair[0])
    (low, worst), (high, best) = ranked[0], ranked[-1]
    assert low < high
    good = publish(registry, best, whole_base)
    bad = publish(registry, worst, whole_base, alias="canary")
    with pytest.raises(GateError, match=r"accuracy of .* is not known"):
        registry.promote(bad, require="accuracy>=current")
    with pytest.raises(GateError) as caught:
        registry.promote(bad, require="accuracy>=current", data=data)
    assert f"{low:.4f} >= {high:.4f} FAILS" in str(caught.value)
    assert registry.resolve("de", "t").version == good

    registry.promote(bad, require=f"accuracy>=current-{high - low + 0.001}", data=data)
    registry.promote(good, require="accuracy>=current", data=str(data))
    assert f"{high:.4f} >= {low:.4f} holds" in (registry.history("de", "t")[0].reason or "")

    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"text": "hoi", "label": "greeting"}\n')
    with pytest.raises(UnknownLabelError):
        registry.promote(bad, require="accuracy>=0", data=strange)
