"""Write `locales.json`, `matching.json` and `LICENSE-unicode.txt` anew from published packages.

For maintainers, after a release of CLDR; needs Python 3.11 and npm, and nothing else:

    python core/cldr/refresh.py

Raise the versions below first, then read the diff: it is what changes for users. The same
versions always give the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

# CLDR: Unicode-3.0, which asks for its licence text beside the data.
CLDR = "cldr-core@48.0.0"
# Its package.json says CC0-1.0. What it holds is the IANA registry of RFC 5646 as JSON: facts
# that IANA publishes without restriction.
REGISTRY = "language-subtag-registry@0.4.2"

HERE = Path(__file__).resolve().parent

# unicode_language_id of UTS #35: what an alias replaces subtag by subtag.
LANGUAGE_ID = re.compile(
    r"(?:[a-z]{2,3}|[a-z]{5,8})(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"
)
REGION = re.compile(r"[A-Z]{2}|[0-9]{3}")


class Package:
    """The files of one npm package, read from its tarball."""

    def __init__(self, name: str, folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("npm was not found; install Node.js, which brings it")
        command = [npm, "pack", "--silent", "--pack-destination", str(folder), name]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        self._path = folder / (name.replace("@", "-") + ".tgz")

    def text(self, path: str) -> str:
        """The content of one file."""
        with tarfile.open(self._path) as archive:
            file = archive.extractfile(f"package/{path}")
            assert file is not None, path
            return file.read().decode()

    def json(self, path: str) -> Any:
        """The content of one JSON file."""
        return json.loads(self.text(path))


def iana(package: Package) -> dict[str, Any]:
    """The valid subtags, by type, and the extended language subtags by their prefix."""
    subtags: dict[str, set[str]] = defaultdict(set)
    extlangs: dict[str, set[str]] = defaultdict(set)
    for record in package.json("data/json/registry.json"):
        subtag = record.get("Subtag")
        # Whole tags (grandfathered, redundant) are no subtags; core/locale.py has the private-use
        # ranges, such as qaa..qtz.
        if subtag is None or ".." in subtag:
            continue
        if record["Type"] == "extlang":
            (prefix,) = record["Prefix"]
            extlangs[prefix].add(subtag)
            subtags["language"].add(subtag)
        else:
            subtags[record["Type"]].add(subtag)
    return {
        "iana_file_date": package.json("data/json/meta.json")["File-Date"],
        "languages": joined(subtags["language"]),
        "extlangs": {prefix: joined(members) for prefix, members in extlangs.items()},
        "scripts": joined(subtags["script"]),
        "regions": joined(subtags["region"]),
        "variants": joined(subtags["variant"]),
    }


def cldr(package: Package) -> dict[str, Any]:
    """The explicit parents, the likely subtags and the aliases."""
    parents = package.json("supplemental/parentLocales.json")["supplemental"]["parentLocales"]
    return {
        "cldr_version": package.json("package.json")["version"],
        "parents": parents["parentLocale"],
        **likely(package),
        **aliases(package),
    }


def likely(package: Package) -> dict[str, Any]:
    """The likely subtags: what to add, and to which tags.

    Nearly every entry adds a script and a region to a language that stays as it is, so that one
    line serves many tags. Where the language is unknown the whole tag is written.
    """
    table = package.json("supplemental/likelySubtags.json")["supplemental"]["likelySubtags"]
    added: dict[str, set[str]] = defaultdict(set)
    unknown: dict[str, str] = {}
    for tag, maximal in table.items():
        language, _, rest = tag.partition("-")
        if language == "und":
            unknown[rest] = maximal
        else:
            kept, _, addition = maximal.partition("-")
            assert kept == language, tag
            added[addition].add(tag)
    return {
        "likely_subtags": {addition: joined(tags) for addition, tags in added.items()},
        "likely_subtags_of_und": unknown,
    }


def aliases(package: Package) -> dict[str, Any]:
    """The aliases of UTS #35, Annex C, by what they replace.

    A replacement of several words is a choice, the default first. A legacy tag (`i-klingon`,
    `zh-min-nan`) is no Unicode language identifier and is replaced before it is taken apart.
    """
    tables = package.json("supplemental/aliases.json")["supplemental"]["metadata"]["alias"]

    def table(name: str) -> dict[str, str]:
        return {tag: entry["_replacement"] for tag, entry in tables[name].items()}

    language = table("languageAlias")
    legacy = {tag for tag in language if not LANGUAGE_ID.fullmatch(tag)}
    return {
        "legacy_tags": {tag.lower(): language[tag] for tag in legacy},
        "language_aliases": {tag: language[tag] for tag in language.keys() - legacy},
        "script_aliases": table("scriptAlias"),
        # Codes of three letters (DEU for DE) can't stand in a tag.
        "region_aliases": {
            region: instead
            for region, instead in table("territoryAlias").items()
            if REGION.fullmatch(region)
        },
        "variant_aliases": table("variantAlias"),
        "subdivision_aliases": table("subdivisionAlias"),
    }


def matching(package: Package) -> dict[str, Any]:
    """The distances between languages, scripts and regions (UTS #35, "Language Matching").

    The rules keep CLDR's order, as the first that fits counts: `desired supported distance`, and
    `oneway` where it doesn't hold the other way round.
    """
    written = package.json("supplemental/languageMatching.json")["supplemental"]
    data = written["languageMatching"]["written-new"]
    rules = []
    for rule in data["languageMatch"]:
        words = [rule["_desired"], rule["_supported"], str(rule["_distance"])]
        rules.append(" ".join([*words, "oneway"] if rule.get("_oneway") else words))
    return {
        "cldr_version": package.json("package.json")["version"],
        "paradigm_locales": " ".join(data["paradigmLocales"]["_locales"]),
        # `HK+MO`: a union; a number such as 019 is a region that contains others.
        "match_variables": {
            name: entry["_value"] for name, entry in data["matchVariables"].items()
        },
        "language_matches": rules,
        "region_contains": containment(package),
    }


def containment(package: Package) -> dict[str, str]:
    """The regions within each region of several, groupings such as 419 among them."""
    table = package.json("supplemental/territoryContainment.json")["supplemental"]
    within: dict[str, set[str]] = defaultdict(set)
    for name, entry in table["territoryContainment"].items():
        region, _, status = name.partition("-status-")
        if status != "deprecated":
            within[region] |= set(entry["_contains"])
    return {region: joined(members) for region, members in within.items()}


def joined(words: set[str]) -> str:
    """One line for many short words: a list would take a line each."""
    return " ".join(sorted(words))


def write(name: str, data: dict[str, Any]) -> None:
    """Write one data file, a short line for each entry, so that its diff can be read."""
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    (HERE / name).write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Fetch both packages and write the files."""
    with tempfile.TemporaryDirectory() as folder:
        cldr_package = Package(CLDR, Path(folder))
        locales = cldr(cldr_package) | iana(Package(REGISTRY, Path(folder)))
        distances = matching(cldr_package)
        licence = cldr_package.text("LICENSE")
    write("locales.json", locales)
    write("matching.json", distances)
    (HERE / "LICENSE-unicode.txt").write_text(licence, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
