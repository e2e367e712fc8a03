"""A sample of the mutations of `fuzz.py`, and those that failed in the past."""

from concurrent.futures import ThreadPoolExecutor

import fuzz
import pytest

pytestmark = pytest.mark.slow

FIRST = 8
ONCE_FAILED = [  # with valid files written by h5py 3.16 and numpy 2.4
    ("hdf5", 0, 145),  # text whose type is changed: the HDF5 library crashed while reading it (signal 11)
    ("hdf5", 0, 707),  # shifted bytes: a heap of text claimed 1.2 GB, which the library allocated
    ("hdf5", 0, 1449),  # heap of text with a cycle: the library never finished
    ("load: own parquet", 0, 1282),  # statistics of another length: pyarrow ended the process
    ("load: wikipedia, follow-ups", 0, 840),  # line breaks in the name of an array appeared in the message
    ("load: wikipedia, follow-ups", 0, 913),  # the same
]


def test_damaged_files_are_read_or_refused_without_crash_hang_or_much_memory():
    jobs = [(name, 0, 0, FIRST) for name in ("hdf5", "mat73")]  # the longest first
    jobs += [(name, seed, index, index + 1) for name, seed, index in ONCE_FAILED]
    # These cover the probe in a worker process; the others run faster without it.
    jobs += [
        (name, 0, 0, FIRST, False)
        for name in (*fuzz.WRITERS, *fuzz.LOADS, *fuzz.NOISE)
        if name not in ("hdf5", "mat73")
    ]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda job: fuzz.fuzz(*job), jobs))
    bad = [
        (name, seed, index, found)
        for (name, seed, *_), outcomes in zip(jobs, results, strict=True)
        for index, found in outcomes.items()
        if found not in ("ok", "refused")
    ]
    assert not bad
    assert sum(map(len, results)) == FIRST * len({*fuzz.WRITERS, *fuzz.LOADS, *fuzz.NOISE}) + len(ONCE_FAILED)


def test_a_process_that_dies_is_the_failure_of_its_last_mutation(monkeypatch, tmp_path):
    program = tmp_path / "child.py"
    program.write_text(
        "import os, sys\n"
        "first, stop = map(int, sys.argv[4:6])\n"
        "for i in range(first, stop):\n"
        "    print(f'[{i}, \"started\"]', flush=True)\n"
        "    if i == 2: os.abort()\n"
        "    print(f'[{i}, \"ok\"]', flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(program))
    results = fuzz.fuzz("npz", 0, 0, 5)
    assert [results[i] for i in (0, 1, 3, 4)] == ["ok"] * 4
    assert results[2].startswith("process ended by -6")
