from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from isogloss.core.errors import RegistryUnavailableError
from isogloss.registry.signing import generate_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isogloss.registry import Registry, Version
    from isogloss.registry.verification import Finding, FindingKind

    from .conftest import MakeAdapter


@pytest.fixture
def published(registry: Registry, make_adapter: MakeAdapter) -> list[Version]:
    return [
        registry.publish(make_adapter(seed), locale=locale, task="intent", smoke=False)
        for seed, locale in enumerate(("de", "gsw-CH", "es-MX"))
    ]


@pytest.fixture
def blob(registry: Registry, tmp_path: Path) -> Callable[[Version, str], Path]:
    """The file in which a file of a version lies."""

    def find(version: Version, name: str) -> Path:
        digest = next(file.sha256 for file in version.files if file.path == name)
        return tmp_path / "registry" / "blobs" / "sha256" / digest[:2] / digest

    return find


@pytest.fixture
def tamper(place: Path, registry: Registry) -> Callable[..., None]:
    """Changes the catalogue behind the registry's back."""

    def execute(statement: str, **values: object) -> None:
        database = registry._catalog._database
        with database.writing() as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
            connection.execute(sa.text(statement), values)

    return execute


def findings(registry: Registry) -> Iterator[Finding]:
    return iter(registry.verify().findings)


def test_a_sound_registry_has_no_findings(registry: Registry, published: list[Version]) -> None:
    report = registry.verify()
    assert report.is_sound
    assert report.findings == ()
    assert (report.versions, report.aliases) == (3, 3)
    stored = {file.sha256: file.size for version in published for file in version.files}
    assert (report.blobs, report.bytes) == (len(stored), sum(stored.values()))


def test_an_empty_registry_is_sound(registry: Registry) -> None:
    report = registry.verify()
    assert report.is_sound
    assert (report.versions, report.blobs, report.findings) == (0, 0, ())


def test_a_flipped_bit_is_found_and_named(
    registry: Registry, published: list[Version], blob: Callable[[Version, str], Path]
) -> None:
    path = blob(published[1], "adapter_model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    report = registry.verify()
    assert not report.is_sound
    (found,) = report.findings
    assert (found.kind, found.subject) == ("blob-damaged", published[1].name)
    assert "adapter_model.safetensors" in found.problem
    assert path.name in found.problem


def test_a_lost_blob_is_found_in_every_version_that_needs_it(
    registry: Registry, published: list[Version], blob: Callable[[Version, str], Path]
) -> None:
    # The config is the same in all three.
    blob(published[0], "adapter_config.json").unlink()
    found = list(findings(registry))
    assert {finding.kind for finding in found} == {"blob-missing"}
    assert {finding.subject for finding in found} == {version.name for version in published}


def test_publishing_again_mends_a_version(
    registry: Registry,
    published: list[Version],
    blob: Callable[[Version, str], Path],
    tmp_path: Path,
) -> None:
    blob(published[0], "adapter_model.safetensors").write_bytes(b"damaged")
    blob(published[0], "isogloss.json").unlink()
    assert not registry.verify().is_sound
    folder = tmp_path / "adapters" / "0-3"
    again = registry.publish(folder, locale="de", task="intent", smoke=False)
    assert again == published[0]
    assert registry.verify().findings == ()


def test_orphans_are_no_damage(registry: Registry, published: list[Version]) -> None:
    digest = registry._blobs.put(b"nobody's")
    report = registry.verify()
    assert report.is_sound
    assert [(found.kind, found.subject) for found in report.findings] == [("blob-orphaned", digest)]


def test_a_damaged_orphan_is_damage(
    registry: Registry, published: list[Version], tmp_path: Path
) -> None:
    digest = registry._blobs.put(b"nobody's")
    path = tmp_path / "registry" / "blobs" / "sha256" / digest[:2] / digest
    path.write_bytes(b"somebody's")
    (found,) = findings(registry)
    assert (found.kind, found.subject, found.is_damage) == ("blob-damaged", digest, True)


TAMPERINGS: list[tuple[FindingKind, str]] = [
    ("version-digest", "UPDATE versions SET manifest = :manifest WHERE digest = :digest"),
    ("version-record", "UPDATE versions SET labels = :labels WHERE digest = :digest"),
    ("version-record", "UPDATE versions SET base_fingerprint = :other WHERE digest = :digest"),
    ("version-record", "UPDATE versions SET rank = 64 WHERE digest = :digest"),
    ("version-part", "UPDATE versions SET parts = :parts WHERE digest = :digest"),
    ("alias-history", "DELETE FROM alias_history WHERE digest = :digest"),
    ("alias-history", "UPDATE alias_history SET digest = :other WHERE digest = :digest"),
    ("alias-dangling", "UPDATE aliases SET locale = 'fr' WHERE digest = :digest"),
]


@pytest.mark.parametrize(("kind", "statement"), TAMPERINGS)
def test_a_catalogue_that_was_tampered_with_is_found_out(
    registry: Registry,
    published: list[Version],
    tamper: Callable[..., None],
    kind: FindingKind,
    statement: str,
) -> None:
    version = published[2]
    values = {
        "manifest": json.dumps(
            [{"path": file.path, "size": file.size, "sha256": file.sha256}
             for file in version.files[:-1]]
        ),
        "labels": json.dumps(["no", "such", "labels"]),
        "other": "f" * 64,
        "parts": json.dumps(["e" * 64]),
        "digest": version.digest,
    }  # fmt: skip
    used = {name: value for name, value in values.items() if f":{name}" in statement}
    tamper(statement, **used)
    report = registry.verify()
    assert not report.is_sound
    assert kind in {found.kind for found in report.findings}


def test_an_alias_to_a_version_that_is_gone(
    registry: Registry, published: list[Version], tamper: Callable[..., None]
) -> None:
    if registry._catalog._database.place.startswith("postgresql"):
        tamper("ALTER TABLE aliases DROP CONSTRAINT fk_aliases_digest")
    else:
        tamper("DROP TABLE aliases")
        tamper("CREATE TABLE aliases (locale, task, alias, digest, updated_at)")
        tamper(
            "INSERT INTO aliases SELECT locale, task, alias, digest, changed_at FROM alias_history"
        )
    tamper("DELETE FROM versions WHERE digest = :digest", digest=published[0].digest)
    found = {finding.kind: finding for finding in findings(registry)}
    assert found["alias-dangling"].subject == "production of intent/de"
    assert published[0].digest in found["alias-dangling"].problem
    # Its own files are nobody's now; the config is still the others'.
    assert not found["blob-orphaned"].is_damage


def test_signatures_are_checked(
    registry: Registry, published: list[Version], tamper: Callable[..., None], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    generate_key(key)
    registry.rules.trust_key(tmp_path / "key.pub", name="release")
    for version in published:
        registry.rules.sign(version, key)
    registry.require_signatures()
    assert registry.verify().findings == ()
    tamper(
        "UPDATE signatures SET signature = :signature WHERE digest = :digest",
        signature="0" * 128,
        digest=published[0].digest,
    )
    found = {finding.kind: finding for finding in findings(registry)}
    assert set(found) == {"signature-invalid", "signature-missing"}
    assert {finding.subject for finding in found.values()} == {published[0].name}
    assert all(finding.is_damage for finding in found.values())


def test_a_store_that_is_away_is_no_damage(
    registry: Registry, published: list[Version], s3_endpoint: str, tmp_path: Path
) -> None:
    from isogloss.registry.object_store import ObjectBlobs
    from isogloss.registry.verification import verify

    blobs = ObjectBlobs("s3://no-such-bucket/blobs", {"endpoint_url": s3_endpoint})
    with pytest.raises(RegistryUnavailableError):
        verify(registry._catalog, blobs)
