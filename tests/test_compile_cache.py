"""The compilation cache: in the user's cache folder, read by the next start, unless switched off."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
early = "early" in sys.argv
if early:
    import jax
from mrl_jax.cli import Parser, run_command

def command():
    Parser(compiles=True).parse_args([a for a in sys.argv[1:] if a.startswith("-")])
    import jax
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
    print(jax.jit(lambda x: x * 3.5 + 1)(2.0), sum("cache_hits" in name for name in hits))
    print(jax.config.jax_compilation_cache_dir)

sys.exit(run_command(command))
"""


def run(cache, *arguments, stderr="", program=PROGRAM, **variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env |= {"XDG_CACHE_HOME": str(cache), **variables}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(stderr, done.stderr)
    return done.stdout.splitlines()


@pytest.mark.parametrize("when", ["early", "late"])
def test_the_second_start_reads_what_the_first_compiled(tmp_path, when):
    value, folder = run(tmp_path, when)
    assert value == "8.0 0"
    assert folder.startswith(str(tmp_path / "mrl_jax" / "compiled"))
    assert run(tmp_path, when) == ["8.0 1", folder]


def test_a_flag_switches_it_off_and_another_folder_stays(tmp_path):
    assert run(tmp_path / "a", "--no-compile-cache") == ["8.0 0", "None"]
    asked = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "b")}
    assert run(tmp_path / "a", "--no-compile-cache", **asked) == ["8.0 0", str(tmp_path / "b")]
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "a").exists()
    own = str(tmp_path / "own")
    assert run(tmp_path / "a", JAX_COMPILATION_CACHE_DIR=own) == ["8.0 0", own]
    assert not (tmp_path / "a").exists()


def test_without_a_writable_folder_programs_run_uncached(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert run(tmp_path / "file") == ["8.0 0", "None"]


def test_a_damaged_entry_is_compiled_anew(tmp_path):
    folder = Path(run(tmp_path)[1])
    entries = [path for path in folder.iterdir() if path.name.endswith("-cache")]
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-60])
    stderr = rf"warning: Error reading persistent compilation cache entry .*; if this comes again, delete {folder}\n"
    assert run(tmp_path, stderr=stderr)[0] == "8.0 0"


def test_entries_that_were_swapped_are_compiled_anew(tmp_path):
    """JAX takes an entry by its name: here it would call a program of other arguments."""
    second = "    print(jax.jit(lambda x, y: x[0] - y[1])([1.0], [2.0, 3.0]))\n"
    two = PROGRAM.replace("    print(jax.config", f"{second}    print(jax.config")
    value, other, folder = run(tmp_path, program=two)
    assert (value, other) == ("8.0 0", "-2.0")
    first, *_, last = sorted(path for path in Path(folder).iterdir() if path.name.endswith("-cache"))
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(content)
    warning = rf"warning: a compiled program in {folder} is damaged; it is compiled anew\n"
    assert run(tmp_path, program=two, stderr=f"({warning}){{1,2}}")[:2] in (["8.0 0", "-2.0"], ["8.0 1", "-2.0"])
    flipped = bytearray(last.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    last.write_bytes(flipped)
    assert run(tmp_path, program=two, stderr=warning)[1] == "-2.0"
    assert run(tmp_path, program=two)[:2] == ["8.0 1", "-2.0"]  # written anew
    alone = "\n".join(line for line in PROGRAM.splitlines() if "parse_args" not in line)
    asked = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    assert run(tmp_path, program=alone, **asked)[0] == "8.0 1"  # as other programs read them


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path):
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))\n"
    more = PROGRAM.replace("    print(jax.config", "    jax.jit(lambda x: x - 1)(1.0)\n    print(jax.config")
    lifted = "code = run_command(command)\nresource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\nsys.exit(code)\n"
    more = more.replace("sys.exit(run_command(command))\n", lifted)  # what watches the tests writes files at the end
    stderr = rf"warning: compiled programs cannot be stored in {tmp_path}\S+; make space there\n"
    assert run(tmp_path, program=limited + more, stderr=stderr)[0] == "8.0 0"
