"""A hub that meets damaged adapters on disk keeps serving the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isogloss import Hub
from isogloss.core.errors import DamagedBlobError
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...conftest import PeftAdapter, TinyBase


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'id'\ntR."),
    "a folder": become_folder,
    "a link": become_link,
}


def test_a_hub_serves_what_is_whole(
    tiny_base: TinyBase, peft_adapter: PeftAdapter, tmp_path: Path
) -> None:
    base = tiny_base("xlm-roberta")
    folder = peft_adapter(base)
    with Registry.open(tmp_path / "registry") as registry:
        registry.publish(folder, locale="de", task="intent", smoke=False)
        hub = Hub(registry, base=base)
        texts = ["wo isch mys päckli"]
        expected = hub.predict(texts, locale="de", task="intent")[0].logits
        blobs = tmp_path / "registry" / "blobs"
        for number, name in enumerate(("isogloss.json", "adapter_model.safetensors")):
            for which, (how, damage) in enumerate(DAMAGES.items()):
                # Each of its own content, so that nothing is shared but the config.
                task = f"broken-{number}-{which}"
                other = peft_adapter(base)
                version = registry.publish(other, locale="de", task=task, smoke=False)
                digest = next(file.sha256 for file in version.files if file.path == name)
                damage(blobs / "sha256" / digest[:2] / digest)
                with pytest.raises(DamagedBlobError, match=digest):
                    hub.predict(texts, locale="de", task=task)
                for answering in (hub, Hub(registry, base=base) if which == 0 else hub):
                    answer = answering.predict(texts, locale="de", task="intent")[0]
                    assert answer.logits == expected, how
        damaged = {finding.subject for finding in registry.verify().findings}
        assert len(damaged) == 2 * len(DAMAGES)
        # Publishing the last one again mends it, also under the running hub.
        last = registry.resolve("de", task).version
        assert last is not None
        registry.publish(other, locale="de", task=task, smoke=False)
        assert hub.predict(texts, locale="de", task=task)[0].adapter == last.name
