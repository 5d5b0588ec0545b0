from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from isogloss.core.errors import RegistryNotFoundError
from isogloss.registry import Registry, migrations
from isogloss.registry.catalog import Catalog
from isogloss.registry.tables import METADATA


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_migrations_give_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Catalog(path).close()
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_every_migration_is_listed() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    assert [script.revision for script in scripts] == list(reversed(migrations.REVISIONS))


def test_the_revision_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    for _ in range(2):
        Catalog(path).close()
    assert query(path, "SELECT version_num FROM alembic_version") == [(migrations.HEAD,)]


def test_a_registry_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    Registry.open(tmp_path).close()
    path = tmp_path / "registry.db"
    query(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(RegistryNotFoundError, match=r"'9999'.*install a newer release"):
        Registry.open(tmp_path)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    query(path, "CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()
    with pytest.raises(RegistryNotFoundError, match="no registry: its tables are songs"):
        Registry.open(tmp_path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"hello, this is text" * 100)
    with pytest.raises(RegistryNotFoundError, match="not a database") as caught:
        Registry.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_file_becomes_a_registry(tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()
    with Registry.open(tmp_path, create=False) as registry:
        assert registry.versions() == []


def test_a_path_with_characters_that_mean_something_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "50% of ?mode=ro&x#y 'é'"
    with Registry.open(folder) as registry:
        assert registry.versions() == []
    assert (folder / "registry.db").is_file()


def test_a_registry_of_the_first_release_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        values = {
            **dict.fromkeys(("task_type", "kind", "base", "published_at", "published_by"), "x"),
            "digest": "d" * 64,
            "locale": "de",
            "task": "intent",
            "labels": '["a"]',
            "metrics": "{}",
            "manifest": '[{"path": "isogloss.json", "size": 1, "sha256": "s"}]',
            "bytes": 1,
        }
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        connection.execute(sa.text(f"INSERT INTO versions ({names}) VALUES ({marks})"), values)
    engine.dispose()
    with Registry.open(tmp_path) as registry:
        assert registry.locale_aliases() == []
        registry.locale_alias("bar", "de")
        (version,) = registry.versions()
        assert (version.digest, version.labels) == ("d" * 64, ("a",))
        assert (version.author, version.tools, version.parts) == (None, {}, ())
    assert query(path, "SELECT number FROM generation") == [(1,)]
    assert query(path, "SELECT version_num FROM alembic_version") == [(migrations.HEAD,)]
