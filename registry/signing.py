"""Signatures of versions by Ed25519 (RFC 8032), through `cryptography`.

What is signed is the line `isogloss version 1 ` and the version's digest, in ASCII. The digest
stands for the name, size and content of every file, so that a signature holds for all of it. Keys
are PEM files: PKCS #8 for the private one, SubjectPublicKeyInfo for the public one, as `openssl
genpkey -algorithm ed25519` writes them.

To change keys: trust the new one, sign with it what is in use (`Registry.sign`), then revoke the
old one. Every signature by a revoked key is void, however old; a version that others vouch for too
stays good. The list of keys is in the catalogue: whoever can write there can change it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.errors import InputError, SignatureError
from .records import Signature, manifest_digest
from .times import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from .records import Version

_MAX_KEY_FILE = 16_384
_ID_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose signatures count, and whether a version needs one."""

    required: bool
    """Whether versions without a valid signature are refused."""
    keys: Mapping[str, str] = field(hash=False)
    """Public keys that count: `TrustedKey.id` → `TrustedKey.public`."""


def generate_key(path: Path) -> str:
    """Make a key pair: `path`, which only its owner may read, and `path.pub`; gives the key's id.

    Raises:
        InputError: one of the files is there already, or can't be written; or `cryptography` is
            missing.
    """
    _needs_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise InputError(f"{beside} is there already; give another path")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        beside.write_bytes(public)
    except OSError as error:
        raise InputError(
            f"{error.filename} can't be written: {error.strerror}; give another path"
        ) from None
    return key_id(_raw_public(key))


def key_id(public: bytes) -> str:
    """How a public key of 32 bytes is named."""
    return hashlib.sha256(public).hexdigest()[:_ID_DIGITS]


def read_public_key(path: Path) -> bytes:
    """The 32 bytes of a public key.

    Raises:
        SignatureError: no public Ed25519 key in PEM.
        InputError: `cryptography` is missing.
    """
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(
            f"{path} is no public Ed25519 key in PEM; give the .pub file that "
            "`isogloss keys generate` wrote"
        )
    return key.public_bytes_raw()


def sign(digest: str, path: Path) -> Signature:
    """Sign a version's digest with the private key in a file.

    Raises:
        SignatureError: no private Ed25519 key in PEM, or one that has a passphrase.
        InputError: `cryptography` is missing.
    """
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise SignatureError(
            f"the key in {path} has a passphrase; give one without, from a store of secrets"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(
            f"{path} is no private Ed25519 key in PEM; `isogloss keys generate` makes one"
        )
    return Signature(
        digest=digest,
        key_id=key_id(_raw_public(key)),
        signature=key.sign(_message(digest)).hex(),
        signed_at=utc_now(),
    )


def is_valid(signature: Signature, public: str) -> bool:
    """Whether the key `public`, in hex, made this signature of its digest."""
    _needs_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature.signature), _message(signature.digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def check_signed(version: Version, trust: Trust, signatures: Iterable[Signature]) -> None:
    """Check that a key that counts has signed a version, where that is required.

    Raises:
        SignatureError: none has, or the version's list of files is not what its digest says.
        InputError: `cryptography` is missing.
    """
    if not trust.required:
        return
    if manifest_digest(version.files) != version.digest:
        raise SignatureError(
            f"the list of files of {version.name} is not the one that its digest stands for: the "
            "catalogue was tampered with; publish the version again"
        )
    signatures = list(signatures)
    for signature in signatures:
        public = trust.keys.get(signature.key_id)
        if (
            public is not None
            and signature.digest == version.digest
            and is_valid(signature, public)
        ):
            return
    by = ", ".join(sorted(signature.key_id for signature in signatures))
    raise SignatureError(
        f"{version.name} has no valid signature by a key that this registry trusts, only "
        f"{f'by {by}' if by else 'none at all'}; sign it with a trusted key (--sign), "
        "or `isogloss keys sign`"
    )


def _message(digest: str) -> bytes:
    return f"isogloss version 1 {digest}".encode("ascii")


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise SignatureError(
            f"the key {path} can't be read: {error.strerror}; check the path"
        ) from None


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"signatures need cryptography, which can't be imported ({error}); "
            "pip install 'isogloss[sign]'"
        ) from error
