"""What CI installs: every dependency is locked with a hash, in the versions of requirements.txt."""

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCKED = {
    m[1]: (m[2], m[3])
    for m in re.finditer(
        r"^([a-z0-9-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$",
        (ROOT / ".ci" / "requirements-hashed.txt").read_text(),
        re.MULTILINE,
    )
}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_line_of_the_lock_is_one_package_with_its_hash():
    lines = (ROOT / ".ci" / "requirements-hashed.txt").read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(LOCKED) == len(lines) - 1
    assert len({digest for _, digest in LOCKED.values()}) == len(LOCKED)


def test_the_lock_has_what_the_package_and_its_tests_need_in_the_versions_of_the_constraints():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    needed = [Requirement(line) for line in texts.splitlines() if line.strip() and not line.startswith("#")]
    stale = [str(r) for r in needed if normal(r.name) not in LOCKED or LOCKED[normal(r.name)][0] not in r.specifier]
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            pinned = Requirement(line)
            version, _ = LOCKED.get(normal(pinned.name), ("", ""))
            stale += [line] if version and version not in pinned.specifier else []
    assert not stale, "run make lock"


def test_licences_are_listed_and_an_odd_one_is_named(tmp_path):
    def listed(*path):
        code = f"import sys; sys.path[:0] = {[str(p) for p in path]}; sys.argv = ['x', 'licences']; import runpy; "
        code += f"runpy.run_path({str(ROOT / '.ci' / 'supply_chain.py')!r}, run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    done = listed()
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(re.findall(r"^\| (\S+) +\| \S+ +\| (.+?) +\|$", done.stdout, re.MULTILINE))
    assert rows["jax"].startswith("Apache")
    assert {"numpy", "flax", "pytest"} <= set(rows)
    for licence in ("GPL-3.0-only", "MIT AND AGPL-3.0-or-later", ""):
        info = tmp_path / "jax-0.10.2.dist-info"  # found before the real one
        info.mkdir(exist_ok=True)
        field = f"License-Expression: {licence}\n" if licence else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: jax\nVersion: 0.10.2\n{field}")
        done = listed(tmp_path)
        assert done.returncode == 1
        assert done.stderr == f"to look at: jax: {licence or 'unknown'}\n"


def used(wheel):
    program = [sys.executable, str(ROOT / ".ci" / "use_wheel.py"), str(wheel)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_a_wheel_that_lacks_files_or_asks_for_what_is_not_there_is_refused(tmp_path):
    """The real wheel is made and used by `make dist`, which .ci/run calls."""
    tracked = subprocess.run(
        ["git", "ls-files", "mrl_jax"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    packed = {*tracked.splitlines(), "mrl_jax/left_over.py"} - {
        "mrl_jax/search/server/page.css",
        "mrl_jax/losses/mrl.py",
    }
    with zipfile.ZipFile(tmp_path / "mrl_jax-9.9-py3-none-any.whl", "w") as wheel:
        for name in packed:
            wheel.writestr(name, "")
        required = "numpy>=1", "numpy<1", "not-on-any-index>=3", "none-either; extra == 'test'"
        wheel.writestr("mrl_jax-9.9.dist-info/METADATA", "".join(f"Requires-Dist: {line}\n" for line in required))
    done = used(wheel.filename)
    assert (done.returncode, done.stdout) == (1, "")
    assert set(done.stderr.splitlines()) == {
        "the wheel lacks mrl_jax/losses/mrl.py",
        "the wheel lacks mrl_jax/search/server/page.css",
        "the wheel has mrl_jax/left_over.py, which git does not track",
        f"mrl_jax requires numpy<1; {np.__version__} is installed here (make train)",
        "mrl_jax requires not-on-any-index>=3, which is not installed here; install the package (make train)",
    }
