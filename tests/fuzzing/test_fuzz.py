"""A sample of the cases of `fuzz.py`, and those that failed in the past."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import fuzz
import pytest
from fuzz import SEEDS, Job
from fuzzing.readers import READERS

pytestmark = pytest.mark.slow

FIRST = 4
PROBED = ("hdf5", "mat73", "parquet", "load: own parquet")  # in a process of its own, here too
ELSEWHERE = {"checkpoint", "requests"}  # need training; see tests/search/test_serve_hostile.py
if find_spec("torch") is None:  # which writes the valid file
    ELSEWHERE.add("official weights")
ONCE_FAILED = [path for folder in SEEDS.iterdir() for path in folder.iterdir()]


def test_damaged_files_are_read_or_refused_without_crash_hang_or_much_memory():
    names = {fuzz.slug(name): name for name in READERS}
    assert len(names) == len(READERS)
    assert {path.parent.name for path in ONCE_FAILED} <= set(names)
    jobs = [Job(name, 0, FIRST) for name in READERS if name not in ELSEWHERE]
    seeds = [Job(names[path.parent.name], replay=str(path), probe=True) for path in ONCE_FAILED]
    probed = [Job(name, 0, 1, probe=True) for name in PROBED]
    with ThreadPoolExecutor(2) as pool:
        run = list(pool.map(fuzz.fuzz, (jobs, [*probed, *seeds])))
    bad = [
        (own[i], number, result)
        for own, results in zip((jobs, [*probed, *seeds]), run, strict=True)
        for (i, number), result in results.items()
        if result not in fuzz.FINE
    ]
    assert not bad
    assert sum(map(len, run)) == FIRST * len(jobs) + len(probed) + len(seeds)


def test_a_process_that_dies_is_the_failure_of_its_last_case(monkeypatch, tmp_path):
    program = tmp_path / "child.py"
    program.write_text(
        "import json, os, pathlib, sys\n"
        "base = pathlib.Path(sys.argv[2])\n"
        "for i, job in enumerate(json.loads(sys.stdin.read())):\n"
        "    (base / job['reader']).mkdir(exist_ok=True)\n"
        "    for n in range(job['start'], job['stop']):\n"
        "        (base / job['reader'] / 'file').write_text(f'case {n}')\n"
        "        print(json.dumps([i, n, 'started', ['file']]), flush=True)\n"
        "        if job['reader'] == 'npz' and n == 2: os.abort()\n"
        "        print(json.dumps([i, n, 'read']), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(program))
    results = fuzz.fuzz([Job("csv", 0, 2), Job("npz", 0, 4, keep=str(tmp_path / "kept")), Job("keys", 3, 5)])
    died = results.pop((1, 2))
    assert results == dict.fromkeys([(0, 0), (0, 1), (1, 0), (1, 1), (1, 3), (2, 3), (2, 4)], "read")
    assert died.startswith("process ended by -6")
    assert (tmp_path / "kept" / "npz" / "0-2" / "file").read_text() == "case 2"
