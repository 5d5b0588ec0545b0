from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from isogloss.core.errors import (
    InputError,
    RegistryNotFoundError,
    RegistryUnavailableError,
)
from isogloss.registry import Registry
from isogloss.registry.blobs import FolderBlobs
from isogloss.registry.location import Location, locate
from isogloss.registry.object_store import ObjectBlobs

SECRET = "hunter2"
POSTGRES = f"postgresql://anna:{SECRET}@db.example:5433/adapters"


def read(tmp_path: Path, text: str) -> Location:
    settings = tmp_path / "registry.toml"
    settings.write_text(text)
    return locate(settings, database=None, blobs=None)


def test_a_folder() -> None:
    location = locate("~/adapters", database=None, blobs=None)
    folder = Path("~/adapters").expanduser()
    assert location.database == folder / "registry.db"
    assert location.blobs == folder / "blobs"
    assert isinstance(location.open_blobs(), FolderBlobs)


def test_urls() -> None:
    location = locate(None, database=POSTGRES, blobs="s3://bucket/prefix")
    assert isinstance(location.database, sa.URL)
    assert location.database.host == "db.example"
    assert isinstance(location.open_blobs(), ObjectBlobs)
    assert SECRET not in repr(location)
    in_query = f"postgresql://127.0.0.1:9/adapters?password={SECRET}"
    assert SECRET not in repr(locate(None, database=in_query, blobs="b"))
    with pytest.raises(RegistryUnavailableError) as caught:
        Registry.open(database=in_query, blobs="b")
    assert SECRET not in str(caught.value)
    for url in ("postgres://db/adapters", "postgresql+psycopg://db/adapters"):
        database = locate(None, database=url, blobs="b").database
        assert isinstance(database, sa.URL)
        assert database.get_backend_name() == "postgresql"


def test_files_as_urls(tmp_path: Path) -> None:
    location = locate(
        None, database=f"sqlite:///{tmp_path}/r.db", blobs=f"file://{tmp_path}/my%20blobs"
    )
    assert (location.database, location.blobs) == (tmp_path / "r.db", tmp_path / "my blobs")
    with Registry.open(database=tmp_path / "x" / "r.db", blobs=tmp_path / "b") as registry:
        assert registry.versions() == []
    assert (tmp_path / "x" / "r.db").is_file()


def test_settings(tmp_path: Path) -> None:
    location = read(
        tmp_path,
        f'database = "{POSTGRES}"\nblobs = "s3://bucket"\n'
        '[blob_options]\nendpoint_url = "http://127.0.0.1:9"\n',
    )
    assert isinstance(location.database, sa.URL)
    assert location.blobs == "s3://bucket"
    assert location.blob_options == {"endpoint_url": "http://127.0.0.1:9"}

    location = read(tmp_path, 'database = "data/registry.db"\nblobs = "/srv/blobs"\n')
    assert location.database == tmp_path / "data" / "registry.db"
    assert location.blobs == Path("/srv/blobs")


def test_settings_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text('database = "r.db"\nblobs = "b"\n')
    monkeypatch.setenv("ISOGLOSS_REGISTRY", str(settings))
    with pytest.raises(RegistryNotFoundError, match="no registry at"):
        Registry.open(create=False)
    Registry.open().close()
    assert (tmp_path / "r.db").is_file()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'database = "{POSTGRES}', "are not TOML"),
        ("", "lack 'database'"),
        (f'database = "{POSTGRES}"', "lack 'blobs'"),
        ('database = 1\nblobs = "b"', "lack 'database'"),
        ('database = "r.db"\nblobs = "b"\nblob = "c"', "an unknown key 'blob'"),
        ('database = "r.db"\nblobs = "b"\nblob_options = "x"', "are no table"),
        (f'database = "postgresql://u:{SECRET}@h:port/n"\nblobs = "b"', "can't be read"),
        ('database = "sqlite://"\nblobs = "b"', "can't be in memory"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read(tmp_path, text)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryNotFoundError, match="can't be read: No such file"):
        Registry.open(tmp_path / "absent.toml")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    for arguments in (
        {"folder": tmp_path, "database": "r.db", "blobs": "b"},
        {"database": "r.db"},
        {"blobs": "b"},
    ):
        with pytest.raises(InputError, match="give the folder alone, or both of the others"):
            Registry.open(**arguments)
    for url in (POSTGRES, Path(POSTGRES)):
        with pytest.raises(InputError, match="can't be a URL") as caught:
            Registry.open(url)
        assert SECRET not in str(caught.value)
    with pytest.raises(InputError, match="of kind 'mysql'"):
        Registry.open(database="mysql://u:p@h/d", blobs=tmp_path)
    with pytest.raises(InputError, match="another URL"):
        Registry.open(database=tmp_path / "r.db", blobs="nothing://here")
