from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isogloss.core.errors import ArchiveError, IsoglossError
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import MakeAdapter

Entries = list[tuple[tarfile.TarInfo, bytes]]
PUBLISH: dict[str, Any] = {"task": "intent", "smoke": False}


@pytest.fixture
def archive(tmp_path: Path, make_adapter: MakeAdapter) -> bytes:
    """One version, its alias with three moves, and an alias of a locale."""
    with Registry.open(tmp_path / "source") as registry:
        registry.publish(make_adapter(0), locale="de", **PUBLISH)
        registry.publish(make_adapter(1), locale="de", **PUBLISH)
        registry.rollback("de", "intent")
        registry.locale_alias("bar", "de")
        registry.export_archive(tmp_path / "good.tar")
    return (tmp_path / "good.tar").read_bytes()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "target") as registry:
        yield registry


@pytest.fixture
def refused(target: Registry, tmp_path: Path) -> Callable[[bytes], None]:
    """Checks that an archive is refused, and that nothing of it is left but whole versions."""

    def check(content: bytes, *, versions: int = 0) -> None:
        path = tmp_path / "bad.tar"
        path.write_bytes(content)
        with pytest.raises(IsoglossError) as caught:
            target.import_archive(path)
        assert "\n" not in str(caught.value)
        assert len(target.versions()) <= versions or versions < 0
        report = target.verify()
        assert report.findings == ()
        assert target.aliases() == [] or versions < 0

    return check


def unpack(archive: bytes) -> Entries:
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        found = []
        for member in file:
            content = file.extractfile(member)
            assert content is not None
            found.append((member, content.read()))
    return found


def pack(entries: Entries) -> bytes:
    buffer = io.BytesIO()
    for info, content in entries:
        buffer.write(info.tobuf(tarfile.USTAR_FORMAT))
        buffer.write(content + bytes(-len(content) % 512))
    return buffer.getvalue() + bytes(1024)


def entry(name: str, content: bytes, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def sealed(folder: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """An entry whose name is true, as somebody would write it who knows the format."""
    suffix = "" if folder == "blobs" else ".json"
    return entry(f"{folder}/{hashlib.sha256(content).hexdigest()}{suffix}", content)


def change(archive: bytes, folder: str, edit: Callable[[Any], None], *, which: int = 0) -> bytes:
    """The archive with another record of a folder, sealed anew."""
    entries = unpack(archive)
    at = [n for n, (info, _) in enumerate(entries) if info.name.startswith(folder)][which]
    record = json.loads(entries[at][1])
    edit(record)
    content = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    entries[at] = sealed(folder, content)
    return pack(entries)


def test_the_tools_of_this_test_make_an_archive(
    archive: bytes, target: Registry, tmp_path: Path
) -> None:
    entries = unpack(archive)
    assert pack(entries) == archive
    assert change(archive, "aliases", lambda record: None) == archive
    assert [sealed(info.name.split("/")[0], content)[0].name for info, content in entries] == [
        info.name for info, _ in entries
    ]
    (tmp_path / "same.tar").write_bytes(archive)
    assert len(target.import_archive(tmp_path / "same.tar").versions) == 2


def test_any_byte_that_is_wrong_is_found(archive: bytes, refused: Callable[..., None]) -> None:
    generator = np.random.default_rng(5)
    for position in generator.integers(0, len(archive) - 1024, 60):
        damaged = bytearray(archive)
        damaged[position] ^= 1 << int(generator.integers(0, 8))
        refused(bytes(damaged), versions=-1)


def test_any_end_that_is_missing_is_found(archive: bytes, refused: Callable[..., None]) -> None:
    sizes = np.random.default_rng(6).integers(0, len(archive) - 512, 40)
    for size in (0, 1, 511, 512, 513, len(archive) - 1024, len(archive) - 513, *sizes):
        refused(archive[:size], versions=-1)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04" + bytes(2000),
        b"\x80\x04\x95" + bytes(2000),
        b"\x1f\x8b\x08" + bytes(2000),
        bytes(512),
        bytes(100_000),
        b"\xff" * 2048,
        b"{}",
    ],
)
def test_other_files_are_refused(content: bytes, refused: Callable[..., None]) -> None:
    refused(content)


HOSTILE_ENTRIES: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "parent": ("../../etc/passwd", b"x", {}),
    "absolute": ("/etc/cron.d/x", b"x", {}),
    "within": (f"blobs/../{'0' * 64}", b"x", {}),
    "unknown": ("notes.txt", b"x", {}),
    "suffix": (f"blobs/{'0' * 64}.json", b"x", {}),
    "newline": (f"blobs/{'0' * 64}\n", b"x", {}),
    "upper": (f"blobs/{'A' * 64}", b"x", {}),
    "untrue": (f"blobs/{'0' * 64}", b"x", {}),
    "folder": ("blobs/", b"", {"type": tarfile.DIRTYPE}),
    "old-file": (f"blobs/{'0' * 64}", b"", {"type": tarfile.AREGTYPE}),
    "symlink": (f"blobs/{'0' * 64}", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "link": (f"blobs/{'0' * 64}", b"", {"type": tarfile.LNKTYPE, "linkname": "registry.json"}),
    "pipe": (f"blobs/{'0' * 64}", b"", {"type": tarfile.FIFOTYPE}),
    "device": (f"blobs/{'0' * 64}", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    "sparse": (f"blobs/{'0' * 64}", b"", {"type": tarfile.GNUTYPE_SPARSE}),
    "long-name": ("././@LongLink", b"a" * 2000, {"type": tarfile.GNUTYPE_LONGNAME}),
    "extended": ("././@PaxHeader", b"15 path=/etc/x\n", {"type": tarfile.XHDTYPE}),
    "global": ("././@PaxHeader", b"15 path=/etc/x\n", {"type": tarfile.XGLTYPE}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ENTRIES)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_entries_are_refused(
    name: str, first: bool, archive: bytes, refused: Callable[..., None], tmp_path: Path
) -> None:
    named, content, fields = HOSTILE_ENTRIES[name]
    entries = unpack(archive)
    entries.insert(0 if first else 2, entry(named, content, **fields))
    before = sorted(path for path in tmp_path.rglob("*") if "target" not in path.parts)
    refused(pack(entries))
    after = sorted(path for path in tmp_path.rglob("*") if "target" not in path.parts)
    assert set(after) - set(before) == {tmp_path / "bad.tar"}


@pytest.mark.parametrize("size", [(1 << 33) - 1, 257 << 20, 1 << 62, -1])
@pytest.mark.parametrize("folder", ["registry", "versions", "blobs", "aliases"])
def test_sizes_are_refused_before_they_are_read(
    size: int, folder: str, archive: bytes, refused: Callable[..., None]
) -> None:
    info = sealed(folder, b"")[0]
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    refused(header + archive)


RECORDS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "format": ("registry", lambda r: r.update(format=2)),
    "unknown field": ("registry", lambda r: r.update(trusted_keys=["0" * 64])),
    "no locale": ("registry", lambda r: r["locale_aliases"].append(["no_such", "de"])),
    "two answers": ("registry", lambda r: r["locale_aliases"].append(["bar", "fr"])),
    "itself": ("registry", lambda r: r["locale_aliases"].append(["fr", "fr"])),
    "digest": ("versions", lambda r: r.update(digest="0" * 64)),
    "digest of an odd form": ("versions", lambda r: r.update(digest="../" * 20)),
    "one file less": ("versions", lambda r: r["files"].pop()),
    "order": ("versions", lambda r: r["files"].reverse()),
    "twice": ("versions", lambda r: r["files"].append(r["files"][-1])),
    "path": ("versions", lambda r: r["files"][0].update(path="../x")),
    "size": ("versions", lambda r: r["files"][0].update(size=r["files"][0]["size"] + 1)),
    "negative size": ("versions", lambda r: r["files"][0].update(size=-1)),
    "future": ("versions", lambda r: r.update(published_at="2999-01-01T00:00:00.000000+00:00")),
    "no time": ("versions", lambda r: r.update(published_at="yesterday")),
    "other form of time": ("versions", lambda r: r.update(published_at="2020-01-01")),
    "long name": ("versions", lambda r: r.update(published_by="x" * 256)),
    "signature": (
        "versions",
        lambda r: r["signatures"].append(
            {"digest": r["digest"], "key_id": "x", "signature": "y", "signed_at": "z"}
        ),
    ),
    "alias name": ("aliases", lambda r: r["alias"].update(alias="../x")),
    "alias locale": ("aliases", lambda r: r["alias"].update(locale="DE")),
    "alias target": ("aliases", lambda r: r["alias"].update(digest="0" * 64)),
    "alias time": (
        "aliases",
        lambda r: r["alias"].update(updated_at=r["history"][0]["changed_at"]),
    ),
    "no history": ("aliases", lambda r: r.update(history=[])),
    "a move less": ("aliases", lambda r: r["history"].pop(0)),
    "another place": ("aliases", lambda r: r["history"][0].update(locale="fr")),
    "another past": ("aliases", lambda r: r["history"][1].update(previous="0" * 64)),
    "another action": ("aliases", lambda r: r["history"][1].update(action="delete")),
    "rolled back from nowhere": ("aliases", lambda r: r["history"][0].update(action="rollback")),
    "rolled back forward": ("aliases", lambda r: r["history"][1].update(action="rollback")),
    "backwards": (
        "aliases",
        lambda r: r["history"][1].update(changed_at="2001-01-01T00:00:00.000000+00:00"),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_lie_are_refused(
    name: str, archive: bytes, refused: Callable[..., None]
) -> None:
    folder, edit = RECORDS[name]
    # Versions are whole by the time that aliases are looked at.
    refused(change(archive, folder, edit), versions=2 if folder == "aliases" else 0)


def test_keys_that_occur_twice_are_refused(archive: bytes, refused: Callable[..., None]) -> None:
    entries = unpack(archive)
    for content in (
        b'{"format":2,"format":1,"locale_aliases":[]}',
        b'{"format": 1, "locale_aliases": []}',
        b'{"format":1,"locale_aliases":' + b"[" * 100_000,
        b'{"format":1,"locale_aliases":[["\\ud800","de"]]}',
        b"\xff\xfe",
        b"null",
    ):
        refused(pack([sealed("registry", content), *entries[1:]]))


def test_adapters_are_checked_like_those_that_are_published(
    archive: bytes, refused: Callable[..., None]
) -> None:
    """A version whose digests are all true, and whose weights are not finite."""
    entries = unpack(archive)
    at = next(n for n, (info, _) in enumerate(entries) if info.name.startswith("versions"))
    record = json.loads(entries[at][1])
    file = next(f for f in record["files"] if f["path"] == "adapter_model.safetensors")
    old = next(n for n, (info, _) in enumerate(entries) if info.name == f"blobs/{file['sha256']}")
    weights = entries[old][1][:-4] + np.float32("nan").tobytes()
    file["sha256"] = hashlib.sha256(weights).hexdigest()
    listed = json.dumps(record["files"], sort_keys=True, separators=(",", ":"))
    record["digest"] = hashlib.sha256(listed.encode()).hexdigest()
    entries[old] = sealed("blobs", weights)
    content = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    entries[at] = sealed("versions", content)
    refused(pack(entries))


def test_an_alias_to_what_is_not_there(archive: bytes, refused: Callable[..., None]) -> None:
    entries = [e for e in unpack(archive) if e[0].name.startswith(("registry", "aliases"))]
    refused(pack(entries))


def test_what_is_no_file_is_refused(target: Registry, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.tar"):
        with pytest.raises(ArchiveError, match="can't be read"):
            target.import_archive(path)
