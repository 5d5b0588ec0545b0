"""Write `locales.json` and `LICENSE-unicode.txt` anew from the published packages.

For maintainers, after a release of CLDR; needs Python 3.11 and npm, and nothing else:

    python core/cldr/refresh.py

Raise the versions below first, then read the diff: it is what changes for users. The same
versions always give the same bytes.
"""

from __future__ import annotations

import json
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
    """The explicit parents, and the script that each language is likely written in."""
    parents = package.json("supplemental/parentLocales.json")["supplemental"]["parentLocales"]
    likely = package.json("supplemental/likelySubtags.json")["supplemental"]["likelySubtags"]
    script_of = {tag: maximal.split("-")[1] for tag, maximal in likely.items()}
    likely_scripts: dict[str, set[str]] = defaultdict(set)
    for tag, script in script_of.items():
        language, *rest = tag.split("-")
        by_language = not rest
        # sr-ME is written in Latn, sr alone in Cyrl; a region that changes nothing is left out.
        by_region = (
            len(rest) == 1
            and len(rest[0]) != len("Latn")
            and language != "und"
            and script_of.get(language) != script
        )
        if by_language or by_region:
            likely_scripts[script].add(tag)
    return {
        "cldr_version": package.json("package.json")["version"],
        "parents": parents["parentLocale"],
        "likely_scripts": {script: joined(tags) for script, tags in likely_scripts.items()},
    }


def joined(words: set[str]) -> str:
    """One line for many short words: a list would take a line each."""
    return " ".join(sorted(words))


def main() -> None:
    """Fetch both packages and write both files."""
    with tempfile.TemporaryDirectory() as folder:
        cldr_package = Package(CLDR, Path(folder))
        data = cldr(cldr_package) | iana(Package(REGISTRY, Path(folder)))
        licence = cldr_package.text("LICENSE")
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    (HERE / "locales.json").write_text(text, encoding="utf-8", newline="\n")
    (HERE / "LICENSE-unicode.txt").write_text(licence, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
