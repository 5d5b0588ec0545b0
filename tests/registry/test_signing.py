from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from isogloss.core.errors import (
    InputError,
    RegistryUnavailableError,
    SignatureError,
    UnknownVersionError,
    VersionInUseError,
)
from isogloss.registry import Registry, Signature
from isogloss.registry.records import manifest_digest
from isogloss.registry.signing import generate_key, is_valid, key_id, read_public_key, sign
from isogloss.registry.tables import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isogloss.registry import Version

    from .conftest import MakeAdapter

    Key = Callable[[str], Path]


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """Gives the file of a private key, whose public one lies beside it."""

    def make(name: str) -> Path:
        generate_key(tmp_path / name)
        return tmp_path / name

    return make


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def publish(
    registry: Registry, folder: Path, sign: Path | None = None, alias: str | None = "production"
) -> Version:
    return registry.publish(
        folder, locale="gsw-CH", task="intent", alias=alias, sign=sign, smoke=False
    )


def test_a_signature_holds_for_one_digest_and_one_key(key: Key) -> None:
    one, two = key("one"), key("two")
    keys = [read_public_key(public(path)) for path in (one, two)]
    signature = sign("d" * 64, one)
    assert signature.key_id == key_id(keys[0])
    assert is_valid(signature, keys[0].hex())
    assert not is_valid(signature, keys[1].hex())
    assert not is_valid(replace(signature, digest="e" * 64), keys[0].hex())
    for broken in ("", "00" * 64, "not hex", signature.signature[:-2]):
        assert not is_valid(replace(signature, signature=broken), keys[0].hex())
    for broken in ("", "00", "not hex", "ff" * 31):
        assert not is_valid(signature, broken)


def test_the_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = generate_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert made == key_id(read_public_key(tmp_path / "key.pub"))
    content = (tmp_path / "key").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        generate_key(tmp_path / "key")
    (tmp_path / "key.pub").unlink()
    with pytest.raises(InputError, match="can't be written: File exists"):
        generate_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == content
    with pytest.raises(InputError, match="can't be written"):
        generate_key(tmp_path / "absent" / "key")


def test_keys_that_can_not_be_used(tmp_path: Path, key: Key) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    ours = key("ours")
    other = ec.generate_private_key(ec.SECP256R1())
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "curve").write_bytes(other.private_bytes(*forms, serialization.NoEncryption()))
    (tmp_path / "curve.pub").write_bytes(
        other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        *forms, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked").write_bytes(locked)
    (tmp_path / "text").write_text("hello")
    for name in ("curve", "text", "ours.pub"):
        with pytest.raises(SignatureError, match="is no private Ed25519 key"):
            sign("d" * 64, tmp_path / name)
    with pytest.raises(SignatureError, match="has a passphrase"):
        sign("d" * 64, tmp_path / "locked")
    for name in ("curve.pub", "text"):
        with pytest.raises(SignatureError, match="is no public Ed25519 key"):
            read_public_key(tmp_path / name)
    with pytest.raises(SignatureError, match="is no public Ed25519 key"):
        read_public_key(ours)
    with pytest.raises(SignatureError, match="can't be read: No such file"):
        sign("d" * 64, tmp_path / "absent")


def test_signatures_may_be_left_out_unless_they_are_required(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    unsigned = publish(registry, make_adapter(1))
    signed = publish(registry, make_adapter(2), key("ours"))
    assert registry.rules.signatures(unsigned) == []
    (signature,) = registry.rules.signatures(signed)
    assert signature.digest == signed.digest
    assert not registry.rules.requires_signatures()
    registry.promote(unsigned, smoke=False)
    assert registry.read(unsigned)


def test_a_registry_that_requires_signatures(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    ours, theirs = key("ours"), key("theirs")
    trusted = registry.rules.trust_key(public(ours), name="Release team")
    registry.require_signatures()
    assert registry.rules.requires_signatures()
    for signer in (None, theirs):
        for alias in ("production", "canary", None):
            folder = make_adapter(len(str(signer)) + 1000 * len(str(alias)))
            with pytest.raises(SignatureError, match=r"sign it with a trusted key \(--sign\)"):
                publish(registry, folder, signer, alias)
    assert registry.versions() == []

    version = publish(registry, make_adapter(1), ours)
    assert registry.read(version)
    assert registry.resolve("gsw-CH", "intent").version == version
    assert [found.key_id for found in registry.rules.signatures(version)] == [trusted.id]
    registry.rules.check_signatures(version)
    registry.promote(version, alias="canary")
    registry.require_signatures(False)
    publish(registry, make_adapter(2))


def test_what_answers_must_be_signed_before_signatures_are_required(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    ours = key("ours")
    live, idle = publish(registry, make_adapter(1)), publish(registry, make_adapter(2), alias=None)
    registry.rules.trust_key(public(ours), name="Release team")
    with pytest.raises(SignatureError, match=f"{live.name} would no longer answer"):
        registry.require_signatures()
    assert not registry.rules.requires_signatures()
    registry.rules.sign(live.name, ours)
    registry.require_signatures()
    assert registry.read(live)
    for attempt in (
        lambda: registry.promote(idle, smoke=False),
        lambda: registry.promote(idle, alias="canary"),
        lambda: registry.read(idle),
        lambda: registry.rules.check_signatures(idle),
    ):
        with pytest.raises(SignatureError, match=f"{idle.name} has no valid signature"):
            attempt()
    with pytest.raises(UnknownVersionError):
        registry.rules.sign("f" * 64, ours)


def test_keys_are_changed_without_a_gap(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    old, new = key("old"), key("new")
    first = registry.rules.trust_key(public(old), name="2025")
    registry.require_signatures()
    version = publish(registry, make_adapter(), old)
    with pytest.raises(VersionInUseError, match=f"alone vouches for {version.name}"):
        registry.rules.revoke_key(first.id)
    assert registry.read(version)

    second = registry.rules.trust_key(public(new), name="2026")
    registry.rules.sign(version, new)
    registry.rules.revoke_key(first.id, reason="a year is over")
    assert registry.read(version)
    assert registry.resolve("gsw-CH", "intent").version == version
    listed = {found.id: found for found in registry.rules.trusted_keys()}
    assert listed.keys() == {first.id, second.id}
    assert listed[first.id].reason == "a year is over"
    assert listed[first.id].revoked_by
    assert listed[second.id].revoked_at is None
    with pytest.raises(SignatureError, match="was revoked at"):
        registry.rules.trust_key(public(old), name="2025 again")
    with pytest.raises(InputError, match="trusts no key"):
        registry.rules.revoke_key(first.id)
    assert registry.rules.trust_key(public(new), name="2026").id == second.id
    with pytest.raises(SignatureError):
        publish(registry, make_adapter(1), old)


def test_a_revoked_key_stops_what_it_signed_everywhere_at_once(
    place: Path, registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    stolen = key("stolen")
    trusted = registry.rules.trust_key(public(stolen), name="Release team")
    registry.require_signatures()
    version = publish(registry, make_adapter(), stolen)
    with Registry.open(place) as hub:
        assert hub.read(version)
        assert hub.resolve("gsw-CH", "intent").version == version
        registry.rules.revoke_key(trusted.id, reason="stolen", force=True)
        with pytest.raises(SignatureError):
            hub.read(version)
        with pytest.raises(SignatureError):
            hub.resolve("gsw-CH", "intent")
        with pytest.raises(SignatureError):
            registry.promote(version, alias="canary")


def test_a_catalogue_that_was_tampered_with(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    ours = key("ours")
    registry.rules.trust_key(public(ours), name="Release team")
    good = publish(registry, make_adapter(1), ours)
    bad = publish(registry, make_adapter(2))
    database = registry._catalog._database
    # The signed version's list of files is made to name another's.
    manifest = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in bad.files]
    assert manifest_digest(bad.files) != good.digest
    with database.writing() as connection:
        connection.execute(
            sa.update(VERSIONS).where(VERSIONS.c.digest == good.digest).values(manifest=manifest)
        )
    registry.promote(good, alias="canary")
    with pytest.raises(SignatureError, match="tampered with"):
        registry.rules.check_signatures(registry.version(good.digest))
    # A signature is worth nothing beside another version.
    (signature,) = registry.rules.signatures(good)
    registry._catalog.rules.add_signature(
        Signature(
            digest=bad.digest,
            key_id=signature.key_id,
            signature=signature.signature,
            signed_at=signature.signed_at,
        )
    )
    with pytest.raises(SignatureError, match="no valid signature"):
        registry.rules.check_signatures(bad)


def test_reading_goes_on_while_the_catalogue_is_away(
    registry: Registry, make_adapter: MakeAdapter, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = key("ours")
    registry.rules.trust_key(public(ours), name="Release team")
    registry.require_signatures()
    seen = publish(registry, make_adapter(1), ours)
    unseen = publish(registry, make_adapter(2), ours, alias="canary")
    assert registry.read(seen)

    def away(*_: object) -> None:
        raise RegistryUnavailableError("the database can't be reached")

    with monkeypatch.context() as patch:
        patch.setattr(registry._catalog, "generation", away)
        patch.setattr(registry._catalog.rules, "signatures", away)
        assert registry.read(seen)
        with pytest.raises(RegistryUnavailableError):
            registry.read(unseen)
    assert registry.read(unseen)


def test_a_removed_version_takes_its_signatures_along(
    registry: Registry, make_adapter: MakeAdapter, key: Key
) -> None:
    version = publish(registry, make_adapter(), key("ours"), alias=None)
    registry.remove_version(version)
    assert registry._catalog.rules.signatures() == []


def test_names_of_keys(registry: Registry, key: Key) -> None:
    ours = key("ours")
    for name in ("", " \n", "x" * 256):
        with pytest.raises(InputError, match="a key needs a name"):
            registry.rules.trust_key(public(ours), name=name)
    assert registry.rules.trust_key(public(ours), name="Release\nteam").name == "Release team"


WITHOUT = """
import sys
sys.modules["cryptography"] = None
from pathlib import Path
from isogloss.core.errors import InputError
from isogloss.registry.signing import generate_key
try:
    generate_key(Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


def test_without_cryptography(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, str(tmp_path / "key")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "pip install 'isogloss[sign]'" in done.stdout
    assert json.dumps(list(tmp_path.iterdir())) == "[]"
