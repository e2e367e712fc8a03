"""What Dockerfile and environment.yml name is there; CI lints the Dockerfile (make dist)."""

import configparser
import fnmatch
import re
import shlex
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", "utf-8")


def test_what_the_image_copies_is_there_and_not_ignored():
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    copied = [name for name in dict.fromkeys(copied) if name != "./"]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)
    needed = {"setup.cfg", "pyproject.toml", "setup.py", "README.md", "LICENSE", "mrl_jax", "requirements.txt"}
    assert needed == set(copied)  # what setup.cfg reads, and the constraints
    assert any(fnmatch.fnmatch("mrl_jax/data/__pycache__", line.replace("**/", "*")) for line in lines[1:])


def test_extras_and_python_are_those_of_the_package():
    extras, supported = set(SETUP["options.extras_require"]), SpecifierSet(SETUP["options"]["python_requires"])
    used = re.findall(r"EXTRAS=(\S+)", DOCKERFILE + (ROOT / "docs" / "install.md").read_text("utf-8"))
    assert len(used) >= 3
    assert all(set(names.split(",")) <= extras for names in used)
    (version,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)-slim-", DOCKERFILE, re.MULTILINE)
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    python, pip, by_pip = environment["dependencies"]
    assert (python, pip) == (f"python={version}", "pip")
    assert version in supported
    first, second = (shlex.split(line) for line in by_pip["pip"])
    assert first == ["--constraint", "requirements.txt"]
    assert second[0] == "--editable"
    assert Requirement(second[1].replace(".", "mrl_jax", 1)).extras <= extras


def test_the_page_is_checked_where_it_listens():
    serve = DOCKERFILE.split("AS serve")[1].split("\nFROM ")[0]
    (port,) = re.findall(r'"--port", "(\d+)"', serve)
    assert f"EXPOSE {port}" in serve
    assert f"http://127.0.0.1:{port}/healthz" in serve
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[-1] != "0"
