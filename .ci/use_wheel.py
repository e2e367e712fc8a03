"""Use a wheel where nothing is but what it asks for: finds files that it lacks, and packages that it does not name.

    python .ci/use_wheel.py dist/mrl_jax-0.1.0-py3-none-any.whl

A new environment outside of the repository gets the wheel by pip, and links to the packages that its metadata require,
directly or not, out of the environment that runs this. So no package is there that only tests or the repository need,
and nothing is downloaded. docs/release.md says when to run it.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "-m mrl_jax.methods",
    "-m mrl_jax.train --epochs 2 --workdir run",
    "-m mrl_jax.eval --workdir run",
)
# Every module of the wheel is imported; only packages of extras for users may be missing.
IMPORT_ALL = """
import importlib, pathlib, sys, mrl_jax
root, allowed, bad, without = pathlib.Path(mrl_jax.__file__).parent, set(sys.argv[1:]), [], {}
names = [".".join(("mrl_jax", *path.relative_to(root).with_suffix("").parts)) for path in sorted(root.rglob("*.py"))]
names = [name.removesuffix(".__init__") for name in names if not name.endswith(".__main__")]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        without.setdefault(missing, []).append(name) if missing in allowed else bad.append(f"{name}: {error}")
print(f"{len(names)} modules: {len(names) - len(bad) - sum(map(len, without.values()))} imported")
for missing, modules in without.items():
    print(f"    without the package {missing} of an extra not: {', '.join(modules)}")
print(*bad, sep="\\n", file=sys.stderr, end="\\n" if bad else "")
sys.exit(bool(bad))
"""
OWN_EXTRAS = ("test", "bench", "docs")  # what no user needs


def main(wheel: Path) -> int:
    """Check the files of the wheel, install it, and run commands with it; 1 if anything is wrong."""
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        required = Parser().parsestr(file.read(about).decode()).get_all("Requires-Dist", [])
    wanted = subprocess.run(["git", "ls-files", "mrl_jax"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked, packed = set(wanted.stdout.splitlines()), {name for name in names if name.startswith("mrl_jax/")}
    bad = [f"the wheel lacks {name}" for name in sorted(tracked - packed)]
    bad += [f"the wheel has {name}, which git does not track" for name in sorted(packed - tracked)]
    needed, extras = _closure(required, bad), _extras(required)
    if bad:
        print(*bad, sep="\n", file=sys.stderr)
        return 1
    print(f"{wheel.name}: {len(packed)} files, {len(needed)} packages required")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _use(wheel, needed, extras, Path(folder))
        except subprocess.CalledProcessError as error:
            print(f"{wheel.name} fails: {' '.join(error.cmd[1:])[:200]}", file=sys.stderr)
            return 1


def _use(wheel: Path, needed: set[str], extras: set[str], place: Path) -> int:
    run = {"cwd": place, "check": True}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "clean"], **run)
    python = str(place / "clean" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel.resolve())], **run)
    site = next((place / "clean" / "lib").glob("python*/site-packages"))
    for name in needed:
        _link(metadata.distribution(name), site)
    # No PYTHONPATH; and neither the cache nor the settings of the user, so that the data set is made anew.
    run["env"] = {"PATH": os.environ["PATH"], "HOME": str(place), "JAX_PLATFORMS": "cpu"}
    version = wheel.name.split("-")[1]
    shown = subprocess.run([python, "-m", "mrl_jax", "--version"], **run, capture_output=True, text=True).stdout
    if shown != f"mrl_jax {version}\n":
        print(f"--version says {shown!r}, the wheel {version}; build it anew", file=sys.stderr)
        return 1
    (place / "import_all.py").write_text(IMPORT_ALL)
    subprocess.run([python, "import_all.py", *sorted(extras)], **run)
    for command in COMMANDS:
        print(f"python {command}", flush=True)
        subprocess.run([python, *command.split()], **run, stdout=subprocess.DEVNULL)
    print(f"mrl_jax {version} works")
    return 0


def _closure(required: list[str], bad: list[str]) -> set[str]:
    """The packages that the wheel requires without extras; what is not installed as required is added to `bad`."""
    found, seen = set[str](), set[tuple[str, str]]()
    waiting = [(line, "", "mrl_jax") for line in required]
    while waiting:
        line, extra, by = waiting.pop()
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            bad.append(f"{by} requires {line}, which is not installed here; install the package (make train)")
            continue
        if not one.specifier.contains(installed.version, prereleases=True):
            bad.append(f"{by} requires {line}; {installed.version} is installed here (make train)")
        found.add(name)
        for own in {"", *one.extras} - {e for n, e in seen if n == name}:
            seen.add((name, own))
            waiting += [(child, own, name) for child in installed.requires or ()]
    return found


def _extras(required: list[str]) -> set[str]:
    """Names by which the packages of extras for users are imported."""
    lines = [line for line in required if "extra ==" in line and not line.endswith(tuple(f'"{e}"' for e in OWN_EXTRAS))]
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    imported = metadata.packages_distributions().items()
    return {name for name, by in imported if names & set(map(canonicalize_name, by))} | names


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """Link a package into another environment: folders of one package as such, of several file by file."""
    tops = dict[str, list[PurePosixPath]]()
    for file in distribution.files or ():
        if file.parts[0] not in ("..", "__pycache__"):
            tops.setdefault(file.parts[0], []).append(file)
    for top, files in tops.items():
        origin = Path(str(distribution.locate_file(top)))
        shared = origin.is_dir() and not top.endswith((".dist-info", ".libs")) and not (origin / "__init__.py").exists()
        for part in files if shared else [PurePosixPath(top)]:
            link = site / part
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(part))))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
