from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.spec import AdapterSpec
from isogloss.core.errors import (
    DamagedBlobError,
    InputError,
    InvalidLocaleError,
    LabelCountError,
    RegistryError,
    RegistryNotFoundError,
    UnknownAliasError,
    UnknownVersionError,
)
from isogloss.registry import Registry, Version

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import MakeAdapter


def publish(
    registry: Registry, folder: Path, locale: str = "gsw-CH", task: str = "intent"
) -> Version:
    return registry.publish(folder, locale=locale, task=task)


def test_publish_resolve_read(registry: Registry, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    (folder / "training_args.bin").write_bytes(b"left out")
    version = registry.publish(
        folder, locale="GSW_ch", task="intent", labels=["buy", "return", "complain"]
    )
    assert (version.locale, version.task, version.kind, version.rank) == (
        "gsw-CH", "intent", "lora", 2,
    )  # fmt: skip
    assert version.labels == ("buy", "return", "complain")
    assert version.base == "tiny"
    assert version.name == f"intent/gsw-CH@{version.digest[:12]}"
    assert version.published_by
    assert version.published_at.endswith("+00:00")
    assert [file.path for file in version.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "isogloss.json",
    ]

    resolution = registry.resolve("gsw-CH", "intent")
    assert resolution.version == version
    assert (resolution.locale, resolution.stage, resolution.distance) == ("gsw-CH", "exact", 0)

    content = registry.read(version)
    assert version.bytes == sum(map(len, content.values()))
    weights = "adapter_model.safetensors"
    assert content[weights] == (folder / weights).read_bytes()
    assert AdapterSpec.from_json(content["isogloss.json"]).labels == version.labels
    assert str(folder) not in str(version)


def test_what_a_spec_records_is_in_the_version(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    spec = AdapterSpec(
        locale="es-MX",
        task="sentiment",
        labels=("good", "bad", "mixed"),
        base="tiny",
        metrics={"macro_f1": 0.5},
        data_digest="d" * 64,
        created_at="2025-01-02T03:04:05+00:00",
        parent="e" * 64,
    )
    (folder / "isogloss.json").write_bytes(spec.to_json())
    config = json.loads((folder / "adapter_config.json").read_text())
    version = registry.publish(folder, base=config["base_model_name_or_path"], alias="canary")
    assert version.metrics == {"macro_f1": 0.5}
    assert (version.data_digest, version.parent) == ("d" * 64, "e" * 64)
    assert version.created_at == "2025-01-02T03:04:05+00:00"
    assert version.base_fingerprint is not None
    assert [(alias.alias, alias.locale) for alias in registry.aliases()] == [("canary", "es-MX")]


def test_another_locale_is_answered_by_its_parent(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    spanish = publish(registry, make_adapter(1), "es-419")
    resolution = registry.resolve("es_mx", "intent")
    assert (resolution.requested, resolution.locale, resolution.stage) == (
        "es_mx", "es-419", "parent",
    )  # fmt: skip
    assert resolution.version == spanish
    assert any("es-419" in step for step in resolution.trace)


def test_nothing_answers(registry: Registry, make_adapter: MakeAdapter) -> None:
    publish(registry, make_adapter())
    for locale, task, alias in [
        ("bar", "intent", "production"),
        ("gsw-CH", "search", "production"),
        ("gsw-CH", "intent", "canary"),
    ]:
        resolution = registry.resolve(locale, task, alias=alias)
        assert (resolution.locale, resolution.version, resolution.stage) == (None, None, "base")
        assert resolution.trace


def test_the_same_content_is_one_version(registry: Registry, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    first = publish(registry, folder)
    assert publish(registry, folder) == first
    assert registry.versions() == [first]
    assert len(registry.history("gsw-CH", "intent")) == 1

    second = publish(registry, make_adapter(1))
    assert registry.resolve("gsw-CH", "intent").version == second
    assert publish(registry, folder) == first
    assert registry.resolve("gsw-CH", "intent").version == first
    assert len(registry.versions()) == 2
    assert [change.digest for change in registry.history("gsw-CH", "intent")] == [
        first.digest,
        second.digest,
        first.digest,
    ]


def test_one_adapter_for_two_locales_is_two_versions(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    one, two = publish(registry, folder, "de-AT"), publish(registry, folder, "de-CH")
    assert one.digest != two.digest
    assert registry.versions(locale="de_at") == [one]
    weights = [version.files[1].sha256 for version in (one, two)]
    assert weights[0] == weights[1]  # stored once


def test_versions_are_frozen(registry: Registry, make_adapter: MakeAdapter) -> None:
    version = publish(registry, make_adapter())
    with pytest.raises(FrozenInstanceError):
        version.locale = "de"  # type: ignore[misc]


def test_nothing_of_a_refused_adapter_is_kept(
    registry: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    with pytest.raises(LabelCountError):
        registry.publish(make_adapter(), locale="de", task="intent", labels=["one"])
    with pytest.raises(InvalidLocaleError):
        publish(registry, make_adapter(1), "zz-not-a-locale")
    for number, name in enumerate(["", "Production", "-x", "a/b", "a" * 65, "ü", "a\n"], start=2):
        folder = make_adapter(number)
        with pytest.raises(InputError, match="is no name"):
            registry.publish(folder, locale="de", task="intent", alias=name)
        with pytest.raises(InputError, match="is no name"):
            registry.publish(folder, locale="de", task=name)
        with pytest.raises(InputError, match="is no name"):
            registry.resolve("de", name)
        with pytest.raises(InputError, match="is no name"):
            registry.promote("0" * 64, alias=name)
        with pytest.raises(InputError, match="is no name"):
            registry.versions(task=name)
        with pytest.raises(InputError, match="is no name"):
            registry.aliases(alias=name)
        with pytest.raises(InputError, match="is no name"):
            registry.history("de", name)
        with pytest.raises(InputError, match="is no name"):
            registry.rollback("de", "intent", alias=name)
    assert registry.versions() == []
    assert registry.aliases() == []
    assert not (tmp_path / "registry" / "blobs").exists()


def test_versions_are_found_by_name(registry: Registry, make_adapter: MakeAdapter) -> None:
    version = publish(registry, make_adapter())
    short = version.digest[:6]
    for name in (
        version.digest,
        short,
        short.upper(),
        version.name,
        f"intent/gsw-CH@{short}",
        f"intent/gsw_ch@{version.digest}",
    ):
        assert registry.version(name) == version


def test_unknown_versions(registry: Registry, make_adapter: MakeAdapter) -> None:
    version = publish(registry, make_adapter())
    wrong = "0" if version.digest[0] != "0" else "1"
    for name in (wrong * 64, f"intent/de@{version.digest}", f"search/gsw-CH@{version.digest}"):
        with pytest.raises(UnknownVersionError, match=r"no version .* in this registry"):
            registry.version(name)
    for name in ("", version.digest[:5], "production", "intent/gsw-CH", "%%%%%%", "x" * 6):
        with pytest.raises(UnknownVersionError, match="is no version's name"):
            registry.version(name)
    with pytest.raises(UnknownVersionError):
        registry.promote(wrong * 64)


def test_a_prefix_that_several_versions_have(
    registry: Registry, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two digests that begin alike can't be had by trying.
    digests = iter(["abcdef" + "0" * 58, "abcdef" + "1" * 58])
    monkeypatch.setattr("isogloss.registry.publishing.manifest_digest", lambda _: next(digests))
    one, two = publish(registry, make_adapter(1), "de"), publish(registry, make_adapter(2), "bar")
    with pytest.raises(UnknownVersionError, match="is ambiguous") as caught:
        registry.version("abcdef")
    assert one.digest in str(caught.value)
    assert two.digest in str(caught.value)
    assert registry.version("abcdef0") == one
    assert registry.version("intent/bar@abcdef") == two


def test_promote_and_roll_back(registry: Registry, make_adapter: MakeAdapter) -> None:
    one, two = publish(registry, make_adapter(1)), publish(registry, make_adapter(2))
    registry.promote(one.name, alias="canary")
    assert registry.resolve("gsw-CH", "intent", alias="canary").version == one
    assert registry.resolve("gsw-CH", "intent").version == two

    assert registry.rollback("gsw_ch", "intent", reason="complaints") == one
    assert registry.resolve("gsw-CH", "intent").version == one
    newest = registry.history("gsw-CH", "intent")[0]
    assert (newest.digest, newest.previous, newest.action, newest.reason) == (
        one.digest, two.digest, "rollback", "complaints",
    )  # fmt: skip
    with pytest.raises(UnknownAliasError, match="no alias 'stable' of intent/gsw-CH"):
        registry.history("gsw-CH", "intent", alias="stable")
    with pytest.raises(UnknownAliasError, match="has no earlier version"):
        registry.rollback("gsw-CH", "intent")
    # A fallback locale's alias is not touched.
    with pytest.raises(UnknownAliasError, match="doesn't exist"):
        registry.rollback("gsw-CH-x-bernese", "intent")

    registry.promote(two, reason="it was the data")
    assert registry.resolve("gsw-CH", "intent").version == two


def test_damage_is_found_and_mended_by_publishing(
    registry: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = make_adapter()
    version = publish(registry, folder)
    digest = version.files[1].sha256
    blob = tmp_path / "registry" / "blobs" / "sha256" / digest[:2] / digest
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DamagedBlobError, match=digest):
        registry.read(version)
    blob.unlink()
    with pytest.raises(DamagedBlobError, match=digest):
        registry.read(version)
    assert publish(registry, folder) == version
    assert registry.read(version).keys() == {file.path for file in version.files}


def test_content_that_can_not_be_stored(
    registry: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    (tmp_path / "registry" / "blobs").write_text("in the way")
    with pytest.raises(RegistryError, match="can't be stored"):
        publish(registry, make_adapter())
    assert registry.versions() == []


def test_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "a" / "b"
    with pytest.raises(RegistryNotFoundError, match="publish an adapter there first"):
        Registry.open(absent, create=False)
    assert not absent.exists()
    Registry.open(absent).close()
    Registry.open(str(absent), create=False).close()

    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RegistryNotFoundError, match="is a file"):
        Registry.open(file)
    with pytest.raises(RegistryNotFoundError, match="no registry can be made"):
        Registry.open(file / "below")
    with pytest.raises(RegistryNotFoundError, match="File name too long"):
        Registry.open(tmp_path / ("x" * 300))

    monkeypatch.setenv("ISOGLOSS_REGISTRY", str(tmp_path / "named"))
    Registry.open().close()
    assert (tmp_path / "named" / "registry.db").is_file()
    monkeypatch.delenv("ISOGLOSS_REGISTRY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    Registry.open().close()
    assert len(list(tmp_path.rglob("isogloss/registry/registry.db"))) == 1


def test_a_closed_registry_opens_again_where_it_was(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        version = publish(registry, make_adapter())
    with Registry.open(tmp_path / "registry") as registry:
        assert registry.resolve("gsw-CH", "intent").version == version
        assert registry.read(version)
