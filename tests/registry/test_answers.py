from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import pytest

from isogloss.core.errors import UnknownAliasError, UnknownVersionError
from isogloss.registry import Blend, Policy, StoredFile, Version
from isogloss.registry.answers import Answers
from isogloss.registry.catalog import Catalog
from isogloss.registry.records import manifest_digest
from isogloss.registry.times import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    with Catalog(path) as opened:
        yield opened


def publish(catalog: Catalog, locale: str, task: str = "intent", content: str = "") -> Version:
    sha256 = hashlib.sha256(f"{locale} {task} {content}".encode()).hexdigest()
    files = (StoredFile(path="isogloss.json", size=2, sha256=sha256),)
    version = Version(
        digest=manifest_digest(files),
        locale=locale,
        task=task,
        task_type="sequence-classification",
        kind="lora",
        rank=8,
        labels=("a", "b"),
        base="mini",
        base_fingerprint=None,
        metrics={},
        data_digest=None,
        parent=None,
        files=files,
        bytes=2,
        created_at=None,
        published_at=utc_now(),
        published_by="heidi",
    )
    return catalog.publish(version, alias="production")


def test_each_task_resolves_by_itself(catalog: Catalog) -> None:
    spanish, mexican = publish(catalog, "es"), publish(catalog, "es-MX", "search")
    language = publish(catalog, "es-419", "lm")
    answers = Answers(catalog)
    for task, version, stage in (
        ("intent", spanish, "region"),
        ("search", mexican, "exact"),
        ("lm", language, "parent"),
        ("nothing", None, "base"),
    ):
        resolution = answers.resolve("es-MX", task, "production")
        assert (resolution.version, resolution.stage) == (version, stage)
    assert answers.resolve("es-MX", "intent", "canary").version is None
    assert answers.resolve(["ta", "es-AR"], "lm", "production").version == language


def test_every_change_counts_once(catalog: Catalog) -> None:
    assert catalog.generation() == 0
    one = publish(catalog, "de")
    assert catalog.generation() == 1
    publish(catalog, "de")  # the same content
    catalog.promote(one.digest, alias="production", by="peter")  # where it is
    assert catalog.generation() == 1
    two = publish(catalog, "de", content="two")
    assert catalog.generation() == 2
    catalog.rollback("de", "intent", alias="production", by="peter")
    assert catalog.generation() == 3
    catalog.promote(two.digest, alias="production", by="peter")
    assert catalog.generation() == 4
    catalog.set_locale_alias("bar", "de", by="peter")
    assert catalog.generation() == 5
    catalog.remove_locale_alias("bar")
    assert catalog.generation() == 6
    with pytest.raises(UnknownVersionError):
        catalog.promote("0" * 64, alias="production", by="peter")
    with pytest.raises(UnknownAliasError):
        catalog.remove_locale_alias("bar")
    assert catalog.generation() == 6


def test_what_another_process_changes_is_seen_at_the_next_request(
    catalog: Catalog, path: Path
) -> None:
    answers = Answers(catalog)
    assert answers.resolve("de-AT", "intent", "production").version is None
    with Catalog(path) as other:
        one = publish(other, "de")
        assert answers.resolve("de-AT", "intent", "production").version == one
        two = publish(other, "de", content="two")
        assert answers.resolve("de-AT", "intent", "production").version == two
        other.rollback("de", "intent", alias="production", by="peter")
        assert answers.resolve("de-AT", "intent", "production").version == one
        other.set_locale_alias("bar", "de", by="peter")
        assert answers.resolve("bar", "intent", "production").stage == "alias"


def test_a_resolver_is_kept_until_something_changes(catalog: Catalog) -> None:
    publish(catalog, "de")
    answers = Answers(catalog)
    answers.resolve("de", "intent", "production")
    kept = answers._kept["intent", "production"]
    answers.resolve("fr", "intent", "production")
    assert answers._kept["intent", "production"] is kept
    publish(catalog, "fr", "search")
    answers.resolve("fr", "intent", "production")
    assert answers._kept["intent", "production"] is not kept


def test_tasks_that_there_are_none_of_take_no_more_memory(catalog: Catalog) -> None:
    answers = Answers(catalog)
    for number in range(300):
        answers.resolve("de", f"t{number}", "production")
    assert len(answers._kept) <= 256


def test_a_policy_and_a_blend(catalog: Catalog) -> None:
    icelandic = Policy(language_limit=30, blend=Blend(adapters=2))
    english, german = publish(catalog, "en"), publish(catalog, "de")
    answers = Answers(catalog, icelandic)
    assert answers.resolve("is", "intent", "production").version == english
    assert Answers(catalog).resolve("is", "intent", "production").version is None
    swiss = publish(catalog, "gsw")
    resolution = answers.resolve("gsw-CH", "intent", "production")
    assert resolution.version == swiss
    assert [name for name, _ in resolution.blend] == [swiss.name, german.name]
    assert sum(weight for _, weight in resolution.blend) == pytest.approx(1)


def test_threads_see_no_answer_older_than_their_request(catalog: Catalog) -> None:
    publish(catalog, "de", content="0")
    answers = Answers(catalog)
    failures: list[str] = []
    latest = 0
    stop = threading.Event()
    digests = [publish(catalog, "de", content=str(number)).digest for number in range(8)]

    def ask() -> None:
        while not stop.is_set():
            before = latest
            version = answers.resolve("de-AT", "intent", "production").version
            if version is None or digests.index(version.digest) < before:
                failures.append(str(version))

    catalog.promote(digests[0], alias="production", by="peter")
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number, digest in enumerate(digests):
        catalog.promote(digest, alias="production", by="peter")
        latest = number
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_locale_aliases_are_kept_and_listed(catalog: Catalog) -> None:
    catalog.set_locale_alias("bar", "nds", by="heidi")
    catalog.set_locale_alias("bar", "de", by="peter")
    catalog.set_locale_alias("ar-EG", "arz", by="peter")
    found = [(alias.locale, alias.instead, alias.changed_by) for alias in catalog.locale_aliases()]
    assert found == [("ar-EG", "arz", "peter"), ("bar", "de", "peter")]
    assert catalog.locale_aliases()[0].changed_at < utc_now()
    catalog.remove_locale_alias("bar")
    assert [alias.locale for alias in catalog.locale_aliases()] == ["ar-EG"]
