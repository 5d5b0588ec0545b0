"""What it takes to find a locale among 10, 1,000 and 10,000, beside langcodes, Babel and PyICU.

`python -m benchmarks.resolution --json` takes under a minute. The libraries take turns, several
rounds of each in one process; times are process CPU time, medians over the rounds. Requests are
single tags of the same languages as the supported ones. isogloss and PyICU read each anew; where
tags are few, requests come round again and langcodes has them in its caches.

The other libraries answer what CLDR matching answers (Babel: a truncated tag or nothing), so they
stand beside `LocaleMatcher`. `LocaleResolver` says more: stage, distance and a trace.
"""

from __future__ import annotations

import json
import os
import platform
import random
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import babel.core
import click
import icu
import langcodes

from isogloss.core.locale import cldr_version
from isogloss.registry.match_rules import match_rules
from isogloss.registry.matching import LocaleMatcher
from isogloss.registry.resolution import LocaleResolver

from .harness import processor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Answer = Callable[[str], object]

SIZES = (10, 1_000, 10_000)
ROUNDS = 5
SECONDS = 0.25  # of each library, size and round; langcodes gets through a handful of requests
REQUESTS = 2_000
COLD_REQUESTS = 5_000
WARM_REQUESTS = 200_000


def random_tags(rng: random.Random, languages: Sequence[str], count: int) -> list[str]:
    """Distinct tags: a language, often a region, seldom a script."""
    regions = sorted(match_rules().clusters)
    tags: dict[str, None] = {}
    while len(tags) < count:
        subtags = [rng.choice(languages)]
        subtags += [rng.choice(["Latn", "Cyrl", "Arab"])] if rng.random() < 0.1 else []
        subtags += [rng.choice(regions)] if rng.random() < 0.9 else []
        tags["-".join(subtags)] = None
    return list(tags)


def matchers(supported: Sequence[str]) -> dict[str, Answer]:
    """How each library finds the best of the supported tags for one request."""
    builder = icu.LocaleMatcher.Builder()
    theirs = builder.setSupportedLocales([icu.Locale.forLanguageTag(t) for t in supported]).build()
    return {
        "isogloss": LocaleMatcher(supported).best,
        "pyicu": lambda tag: theirs.getBestMatchResult(icu.Locale.forLanguageTag(tag)),
        "langcodes": lambda tag: langcodes.closest_supported_match(tag, supported),
        "babel": lambda tag: babel.core.negotiate_locale([tag], supported, sep="-"),
    }


def seconds_a_call(answer: Answer, requests: Iterator[str]) -> float:
    """CPU seconds for one request, the mean of as many as fit into the time."""
    calls, start = 0, process_time()
    while (spent := process_time() - start) < SECONDS or not calls:
        # Asking the clock costs as much as a quick answer.
        for _ in range(1 if spent > calls * 1e-3 else 100):
            answer(next(requests))
            calls += 1
    return spent / calls


def measure_matching(rng: random.Random, languages: Sequence[str], size: int) -> dict[str, float]:
    """Microseconds a match, and how many times longer the others take."""
    answers = matchers(random_tags(rng, languages, size))
    requests = random_tags(rng, languages, REQUESTS)
    turns = {name: cycle(requests) for name in answers}
    for name, answer in answers.items():
        answer(next(turns[name]))  # reads data and fills the libraries' own tables
    rounds: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(ROUNDS):
        for name, answer in answers.items():
            rounds[name].append(seconds_a_call(answer, turns[name]))
    ours = rounds["isogloss"]
    row = {f"{name}_us": round(median(times) * 1e6, 2) for name, times in rounds.items()}
    for name, times in rounds.items():
        if name != "isogloss":
            ratios = [their / our for their, our in zip(times, ours, strict=True)]
            row[f"vs_{name}"] = round(median(ratios), 2)
    return row


def measure_resolver(rng: random.Random, languages: Sequence[str], size: int) -> dict[str, int]:
    """Resolutions a second: each request for the first time, with its trace, and again."""
    published = random_tags(rng, languages, size)
    requests = random_tags(rng, languages, COLD_REQUESTS)
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(ROUNDS):
        resolver = LocaleResolver(published)
        resolver.resolve("und")
        start = process_time()
        for request in requests:
            resolver.resolve(request)
        cold.append(len(requests) / (process_time() - start))

        again = (requests * (WARM_REQUESTS // len(requests)))[:WARM_REQUESTS]
        start = process_time()
        for request in again:
            resolver.resolve(request)
        warm.append(len(again) / (process_time() - start))
    return {"uncached_per_second": round(median(cold)), "cached_per_second": round(median(warm))}


def environment(seed: int) -> dict[str, Any]:
    """Hardware, versions, date and seed."""
    names = ("babel", "langcodes", "language_data", "pyicu-wheels")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "cldr": cldr_version(),
        "icu": icu.ICU_VERSION,
        **{name: version(name) for name in ("isogloss", *names)},
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--seed", default=48, show_default=True, help="Draws tags and requests.")
def main(as_json: bool, seed: int) -> None:
    """Print microseconds a match and resolutions a second for each number of tags."""
    rng = random.Random(seed)  # noqa: S311
    languages = sorted({name.partition("_")[0] for name in icu.Locale.getAvailableLocales()})
    result = {
        "environment": environment(seed),
        "match": {str(size): measure_matching(rng, languages, size) for size in SIZES},
        "resolve": {str(size): measure_resolver(rng, languages, size) for size in SIZES},
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    for name, value in result["environment"].items():
        click.echo(f"{name}: {value}")
    for size, row in result["match"].items():
        click.echo(f"{size} tags, a match: " + ", ".join(f"{n} {v}" for n, v in row.items()))
    for size, row in result["resolve"].items():
        click.echo(f"{size} tags, resolver: " + ", ".join(f"{n} {v:,}" for n, v in row.items()))


if __name__ == "__main__":
    main()
