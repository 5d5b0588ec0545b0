"""What a registry of 10,000 adapters takes to fill, and what looking into 100,000 versions takes.

`python -m benchmarks.registry --json`, with `--postgres URL` for a PostgreSQL database beside
SQLite; that database must be empty, and is left full. The adapters are real folders, of rank 2 on
the embedded base, each checked and stored as any other (without the smoke forward, which measures
the base). The other versions are rows put into the catalogue's own tables, of 2,500 locales and 8
tasks, each pair with an alias. Times are wall-clock, as disks and servers are waited for.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

from isogloss import Registry
from isogloss.core.progress import Progress
from isogloss.registry import StoredFile, Version
from isogloss.registry.catalog import Catalog
from isogloss.registry.location import locate
from isogloss.registry.records import manifest_digest
from isogloss.registry.rows import next_generation, to_row
from isogloss.registry.tables import ALIASES, VERSIONS

from .adapters import write_lora
from .harness import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASKS = tuple(f"task-{number}" for number in range(8))
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "pt", "ru", "sw", "tr")
LOCALES = tuple(f"{LANGUAGES[number % 10]}-x-n{number:04}" for number in range(2_500))
PAGE = 50
REPEATS = 30
CHUNK = 2_000


def publish(registry: Registry, count: int, *, seed: int) -> dict[str, Any]:
    """Publish adapters; writing their folders is not counted."""
    base = Path("mini")
    seconds = []
    with Progress("publish", total=count) as progress, tempfile.TemporaryDirectory() as name:
        for number in range(count):
            folder = write_lora(
                Path(name) / "adapter",
                base,
                locale=f"de-x-p{number:05}",
                task="embedding",
                rank=2,
                targets=["query"],
                seed=seed + number,
            )
            began = time.perf_counter()
            registry.publish(folder, base=base, smoke=False)
            seconds.append(time.perf_counter() - began)
            shutil.rmtree(folder)
            progress.advance()
    return {
        "adapters": count,
        "seconds": round(sum(seconds), 1),
        "median_ms": round(statistics.median(seconds) * 1e3, 2),
        "p99_ms": round(statistics.quantiles(seconds, n=100)[98] * 1e3, 2),
        "adapter_bytes": sum(found.bytes for found in registry.versions(task="embedding")),
        # What several have in common is stored once.
        "blob_bytes": sum(blob.size for blob in registry._blobs.blobs()),
    }


def rows(count: int, *, seed: int) -> Iterator[Version]:
    """Versions that have never been folders."""
    chance = random.Random(seed)  # noqa: S311
    for number in range(count):
        digests = [hashlib.sha256(f"{seed} {number} {part}".encode()).hexdigest() for part in "abc"]
        files = tuple(
            StoredFile(path=path, size=10_000, sha256=digest)
            for path, digest in zip(
                ("adapter_config.json", "adapter_model.safetensors", "isogloss.json"),
                digests,
                strict=True,
            )
        )
        second = datetime.fromtimestamp(1_700_000_000 + number, UTC)
        yield Version(
            digest=manifest_digest(files),
            locale=LOCALES[number // len(TASKS) % len(LOCALES)],
            task=TASKS[number % len(TASKS)],
            task_type="sequence-classification",
            kind="lora",
            rank=8,
            labels=("order_status", "refund", "return"),
            base="mini",
            base_fingerprint="0" * 64,
            metrics={"macro_f1": round(chance.random(), 3), "accuracy": round(chance.random(), 3)},
            data_digest="0" * 64,
            parent=None,
            files=files,
            bytes=30_000,
            created_at=None,
            published_at=second.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            published_by="benchmark",
            author="benchmark",
        )


def fill(catalog: Catalog, count: int, *, seed: int) -> None:
    """Put rows into the catalogue's tables; the first version of each pair gets the alias."""
    pairs: set[tuple[str, str]] = set()
    chunk: list[Version] = []
    with Progress("fill", total=count) as progress:
        for found in rows(count, seed=seed):
            chunk.append(found)
            if len(chunk) == CHUNK:
                _insert(catalog, chunk, pairs)
                progress.advance(len(chunk))
                chunk = []
        _insert(catalog, chunk, pairs)


def _insert(catalog: Catalog, versions: list[Version], pairs: set[tuple[str, str]]) -> None:
    aliases = []
    for found in versions:
        if (found.locale, found.task) not in pairs:
            pairs.add((found.locale, found.task))
            aliases.append(
                {
                    "locale": found.locale,
                    "task": found.task,
                    "alias": "production",
                    "digest": found.digest,
                    "updated_at": found.published_at,
                }
            )
    with catalog.database.writing() as connection:
        if versions:
            connection.execute(sa.insert(VERSIONS), [to_row(found) for found in versions])
        if aliases:
            connection.execute(sa.insert(ALIASES), aliases)
        next_generation(connection)


def milliseconds(work: Callable[[], object], *, repeats: int = REPEATS) -> dict[str, float]:
    """The median and the longest of several runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e3)
    return {"median_ms": round(statistics.median(times), 3), "max_ms": round(max(times), 3)}


def look(place: Path) -> dict[str, Any]:
    """What it takes to look into a registry that is full."""

    def opened() -> None:
        Registry.open(place, create=False).close()

    found: dict[str, Any] = {"open": milliseconds(opened)}
    with Registry.open(place, create=False) as registry:
        first = registry.versions(limit=PAGE)
        same = registry.versions(task=TASKS[3], locale=LOCALES[7])
        middle = same[len(same) // 2]
        task, locale = {"task": TASKS[5]}, {"locale": LOCALES[7]}
        prefixes = iter([found.digest[:10] for found in first])
        found |= {
            "page_first": milliseconds(lambda: registry.versions(limit=PAGE)),
            "page_middle": milliseconds(lambda: registry.versions(limit=PAGE, after=middle)),
            "page_of_a_task": milliseconds(lambda: registry.versions(**task, limit=PAGE)),
            "page_of_a_locale": milliseconds(lambda: registry.versions(**locale, limit=PAGE)),
            "aliases_of_a_page": milliseconds(lambda: registry.aliases(versions=first)),
            "version_by_digits": milliseconds(lambda: registry.version(next(prefixes))),
        }

        def resolve_first() -> None:
            with Registry.open(place, create=False) as fresh:
                fresh.resolve("de-AT-x-n0001", TASKS[0])

        requests = iter(LOCALES[:REPEATS])
        found |= {
            "open_and_resolve": milliseconds(resolve_first, repeats=5),
            "resolve_new": milliseconds(lambda: registry.resolve(next(requests), TASKS[0])),
            "resolve_again": milliseconds(lambda: registry.resolve(LOCALES[0], TASKS[0])),
            "resolve_50": milliseconds(lambda: registry.resolve_all(LOCALES[:PAGE], TASKS[0])),
        }
        with registry.follow() as follower:
            while follower.state.status != "watching":
                time.sleep(0.01)
            follower.resolve(LOCALES[0], TASKS[0], alias="production")
            found["resolve_following"] = milliseconds(
                lambda: follower.resolve(LOCALES[0], TASKS[0], alias="production")
            )
    program = ["-c", "from isogloss.cli import main; main()"]
    command = [sys.executable, *program, "ls", "--limit", str(PAGE), "--json"]
    environment = {**os.environ, "ISOGLOSS_REGISTRY": str(place)}
    found["ls_process"] = milliseconds(
        lambda: subprocess.run(command, check=True, env=environment, capture_output=True),  # noqa: S603
        repeats=5,
    )
    return found


def measure(place: Path, *, adapters: int, versions: int, seed: int) -> dict[str, Any]:
    """Publish, fill and look."""
    with Registry.open(place) as registry:
        if registry.versions(limit=1):
            raise SystemExit(f"{place} is not empty; give an empty database")
        published = publish(registry, adapters, seed=seed)
    location = locate(place, database=None, blobs=None)
    with Catalog(location.database) as catalog:
        fill(catalog, max(0, versions - adapters), seed=seed)
        count = catalog.upkeep.count_versions()
    result = {"publish": published, "versions": count, "look": look(place)}
    if isinstance(location.database, Path):
        result["database_bytes"] = sum(
            path.stat().st_size for path in location.database.parent.glob("registry.db*")
        )
    return result


def environment(seed: int) -> dict[str, Any]:
    """Hardware, versions, date and seed."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.registry", *sys.argv[1:]]),
        "seed": seed,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("isogloss", "sqlalchemy", "psycopg")},
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--adapters", default=10_000, show_default=True, help="How many are published.")
@click.option("--versions", default=100_000, show_default=True, help="Then filled up to so many.")
@click.option("--postgres", metavar="URL", help="Also in this empty PostgreSQL database.")
@click.option("--seed", default=0, show_default=True)
def main(
    as_json: bool,
    adapters: int,
    versions: int,
    postgres: str | None,
    seed: int,
) -> None:
    """Print what publishing, opening, listing and resolving take."""
    result: dict[str, Any] = {"environment": environment(seed)}
    with tempfile.TemporaryDirectory() as name:
        places = {"sqlite": Path(name) / "registry"}
        if postgres is not None:
            places["postgresql"] = Path(name) / "postgresql.toml"
            places["postgresql"].write_text(
                f'database = "{postgres}"\nblobs = "{name}/postgresql"\n', encoding="utf-8"
            )
        for kind, place in places.items():
            result[kind] = measure(place, adapters=adapters, versions=versions, seed=seed)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    for kind in places:
        found = result[kind]
        click.echo(f"{kind}: {found['versions']:,} versions; publish {found['publish']}")
        click.echo(
            table(
                [["", "median ms", "max ms"], *([n, *t.values()] for n, t in found["look"].items())]
            )
        )


if __name__ == "__main__":
    main()
