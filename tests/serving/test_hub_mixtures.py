"""Mixtures and stacks through the hub, against one dense computation of all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from isogloss import Hub
from isogloss.core.encoder import quiet_transformers
from isogloss.core.errors import InputError, UnknownVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from isogloss import Registry

    from .conftest import PublishLora

TEXTS = ["wo isch mys päckli", "the quick brown fox jumps over the lazy dog"]
KEY = "base_model.model."


@pytest.fixture
def hub(registry: Registry, base: Path) -> Iterator[Hub]:
    with Hub(registry, base=base, slots=4) as opened:
        yield opened


def merged_logits(base: Path, folders: Mapping[Path, float], text: str) -> list[float]:
    """Logits of a mixture: `W + Σ weight · B A` in each layer, heads' logits averaged."""
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=True)
    with quiet_transformers():
        plain = AutoModel.from_pretrained(base)
    changed = {name: value.clone() for name, value in plain.state_dict().items()}
    prefix = ""
    for folder, weight in folders.items():
        tensors = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        scale = weight * config["lora_alpha"] / config["r"]
        for name, down in tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            up = tensors[name.replace("lora_A", "lora_B")]
            module = name.removeprefix(KEY).removesuffix(".lora_A.weight")
            prefix, _, module = module.partition(".")
            changed[f"{module}.weight"] += scale * (up @ down)
    total = torch.zeros(())
    for folder, weight in folders.items():
        tensors = load_file(folder / "adapter_model.safetensors")
        head = {
            name.removeprefix(KEY): value
            for name, value in tensors.items()
            if name.startswith(f"{KEY}classifier")
        }
        labels = next(len(value) for name, value in head.items() if name.endswith("bias"))
        if any(name.endswith("out_proj.bias") for name in head):
            labels = len(head["classifier.out_proj.bias"])
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        whole = {f"{prefix}.{name}": value for name, value in changed.items()} | head
        missing = model.load_state_dict(whole, strict=False).missing_keys
        assert missing == []
        with torch.no_grad():
            total = total + weight * model.eval()(**inputs).logits[0]
    result: list[float] = (total / sum(folders.values())).tolist()
    return result


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.0, 1.0), (1.5, -0.5), (0.2, 0.05)])
def test_a_mixture_is_the_weighted_sum(
    hub: Hub,
    base: Path,
    publish_lora: PublishLora,
    tmp_path: Path,
    weights: tuple[float, float],
) -> None:
    first = publish_lora(base, "de", seed=1, rank=2)
    second = publish_lora(base, "gsw", seed=2, rank=5)
    mixture = {first.name: weights[0], second.name: weights[1]}
    folders = {
        tmp_path / "lora-intent-de-1": weights[0],
        tmp_path / "lora-intent-gsw-2": weights[1],
    }
    predictions = hub.predict(TEXTS, task="intent", locale="gsw-CH", adapter=mixture)
    for text, prediction in zip(TEXTS, predictions, strict=True):
        expected = merged_logits(base, folders, text)
        assert prediction.logits == pytest.approx(expected, abs=1e-5)
        assert prediction.label == "abc"[expected.index(max(expected))]
        assert prediction.adapter == (f"{weights[0]:g}·{first.name} + {weights[1]:g}·{second.name}")
        assert prediction.resolution.version == first


def test_one_adapter_with_a_weight(
    hub: Hub, base: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    version = publish_lora(base, "de", seed=1)
    (half,) = hub.predict(TEXTS[:1], task="intent", locale="de", adapter={version.name: 0.5})
    expected = merged_logits(base, {tmp_path / "lora-intent-de-1": 0.5}, TEXTS[0])
    assert half.logits == pytest.approx(expected, abs=1e-5)
    assert half.adapter == f"0.5·{version.name}"
    whole, named = (
        hub.predict(TEXTS[:1], task="intent", locale="de", adapter=adapter)[0]
        for adapter in ({version.name: 1}, version.name)
    )
    assert whole == named


def test_mixtures_and_others_in_one_batch(hub: Hub, base: Path, publish_lora: PublishLora) -> None:
    names = [publish_lora(base, "de", seed=seed).name for seed in range(4)]
    choices: list[Any] = [
        None,
        names[0],
        {names[0]: 0.5, names[1]: 0.5},
        {names[1]: 0.5, names[0]: 0.5},
        {names[0]: 0.5, names[1]: 0.4},
        {names[2]: 2.0, names[3]: -1.0},
        {names[0]: 0.1, names[1]: 0.2, names[2]: 0.3, names[3]: 0.4},
    ]
    together = hub.predict([TEXTS[0]] * 7, task="intent", locale="de", adapter=choices)
    for choice, found in zip(choices, together, strict=True):
        (alone,) = hub.predict(TEXTS[:1], task="intent", locale="de", adapter=choice)
        assert found.logits == pytest.approx(alone.logits, abs=1e-5)
        assert found.adapter == alone.adapter
    assert together[2].logits == pytest.approx(together[3].logits, abs=1e-5)
    assert together[2].logits != pytest.approx(together[4].logits, abs=1e-4)


def test_a_language_adapter_under_a_task_adapter(
    hub: Hub, registry: Registry, base: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    """The language adapter changes the encoder, and has no say in the answer."""
    task = publish_lora(base, "de", seed=1)
    language = publish_language(registry, base, tmp_path)
    stack = {language: 1.0, task.name: 1.0}
    (found,) = hub.predict(TEXTS[:1], task="intent", locale="gsw", adapter=stack)
    (alone,) = hub.predict(TEXTS[:1], task="intent", locale="gsw", adapter=task.name)
    assert found.adapter == f"1·{language} + 1·{task.name}"
    assert found.logits != pytest.approx(alone.logits, abs=1e-3)
    assert found.resolution.version == task
    with pytest.raises(InputError, match="does 'lm', not 'intent'"):
        hub.predict(TEXTS[:1], task="intent", locale="gsw", adapter=language)


def publish_language(registry: Registry, base: Path, scratch: Path) -> str:
    from isogloss.adapters.spec import AdapterSpec

    folder = scratch / "language"
    folder.mkdir()
    made = scratch / "lora-intent-de-1"
    tensors = load_file(made / "adapter_model.safetensors")
    from safetensors.torch import save_file

    kept = {name: value + 0.1 for name, value in tensors.items() if "lora_" in name}
    save_file(kept, folder / "adapter_model.safetensors")
    config = json.loads((made / "adapter_config.json").read_text()) | {"task_type": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    spec = AdapterSpec.from_json((made / "isogloss.json").read_bytes())
    fields = json.loads(spec.to_json()) | {
        "task": "lm",
        "task_type": "masked-lm",
        "labels": [],
        "head": None,
        "locale": "gsw",
    }
    (folder / "isogloss.json").write_text(json.dumps(fields))
    return registry.publish(folder, base=base).name


def test_mixtures_that_are_refused(
    hub: Hub, base: Path, registry: Registry, publish_lora: PublishLora
) -> None:
    one = publish_lora(base, "de", seed=1)
    two = publish_lora(base, "gsw", seed=2)
    other_labels = publish_lora(base, "nl", seed=3, labels=("a", "c", "b"))
    other_task = publish_lora(base, "de", seed=4, task="topic")

    def refused(adapter: Any, match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            hub.predict(TEXTS, task="intent", locale="de", adapter=adapter)
        assert "\n" not in str(caught.value)

    refused({}, "a mixture of 0 adapters; give 1 to 16")
    refused({one.name: 0.5, other_labels.name: 0.5}, f"{other_labels.name} .* differ in their")
    refused({one.name: 0.5, other_task.name: 0.5}, "does 'topic', not 'intent'")
    refused({one.name: 0.0, two.name: 1.0}, f"{one.name} has weight 0.0")
    refused({one.name: float("nan")}, "weight nan")
    refused({one.name: float("inf"), two.name: 1.0}, "weight inf")
    refused({one.name: -1.0}, "don't sum to more than 0")
    refused({one.name: 1.0, one.digest: 1.0}, "stands twice")
    refused({one.name: "much"}, "a number each")
    refused({one.name: True}, "a number each")
    refused({1: 1.0}, "names of versions")
    refused(5, "adapter is 5; give the name")
    with pytest.raises(UnknownVersionError):
        hub.predict(TEXTS, task="intent", locale="de", adapter={one.name: 1, "intent/de@ffffff": 1})


def test_a_mixture_of_more_than_there_are_slots(
    registry: Registry, base: Path, publish_lora: PublishLora
) -> None:
    names = [publish_lora(base, "de", seed=seed).name for seed in range(3)]
    with Hub(registry, base=base, slots=2) as hub:
        with pytest.raises(InputError, match="3 adapters are needed at once, and of 2 slots"):
            hub.predict(TEXTS, task="intent", locale="de", adapter=dict.fromkeys(names, 0.3))
        hub.predict(TEXTS, task="intent", locale="de", adapter=dict.fromkeys(names[1:], 0.5))


def test_too_many_members(hub: Hub, base: Path, publish_lora: PublishLora) -> None:
    names = [publish_lora(base, "de", seed=seed).name for seed in range(17)]
    with pytest.raises(InputError, match="a mixture of 17 adapters"):
        hub.predict(TEXTS, task="intent", locale="de", adapter=dict.fromkeys(names, 1.0))
