"""Fuzz every reader of files and requests: damage is read or refused by `InputError`, in bounded time and memory.

    python tests/fuzzing/fuzz.py [READER ...] [--cases 10000] [--seed 0] [--start 0] [--guided] [--keep FOLDER]
                                 [--table docs/reliability.md]

`readers.py` lists the readers, `mutations.py` what is done to their files. A case is a mutation of one file, known by
its reader, seed and number. It is read in a child process, so that a crash, a hang and a balloon are failures of their
case and not the end of the program. HDF5 and Parquet files are read without their probe in a process of its own, which
is faster; a failure is then tried again with it, and is none if the probe refuses the file.

`--guided` lets atheris, if it is installed, choose what to mutate: cases that reach new code are mutated further.

Inputs that fail are kept: put them into `tests/fuzzing/seeds`, which `test_fuzz.py` reads again.
"""

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]  # shared test modules, when run as a program
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # small programs, which mostly compile

from fuzzing.mutations import mutate  # noqa: E402
from fuzzing.readers import READERS, Reader  # noqa: E402
from page_table import table_of, write_table  # noqa: E402

SECONDS = 10  # of CPU time for one case
WAIT = 300  # seconds, for one case: where it sleeps
GROWTH = 512 << 20  # bytes of memory that one case may take
ROOM = 3 << 30  # bytes of address space in addition to those at the start of a process
SEEDS = HERE / "seeds"
FINE = ("read", "refused")


class Job(NamedTuple):
    """Cases of a reader, for one child process.

    Attributes:
        reader: its name.
        start: number of the first case.
        stop: number after the last.
        seed: seed of the cases.
        probe: whether files are probed in a process of their own.
        replay: folder of files that replace those of a valid set, instead of mutations; the only case.
        keep: folder for inputs that fail.
        guided: whether atheris chooses what is mutated.
    """

    reader: str
    start: int = 0
    stop: int = 1
    seed: int = 0
    probe: bool = False
    replay: str = ""
    keep: str = ""
    guided: bool = False


def slug(name: str) -> str:
    """The name of a reader as the name of a folder."""
    return re.sub(r"[^\w-]+", "_", name)


def outcome(read: Callable[[Path], Any], path: Path) -> str:
    """Read what may be damaged: "read", "refused", or a description of the failure."""
    from mrl_jax.errors import InputError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        if isinstance(error.__cause__, MemoryError | RecursionError) or "unable to alloc" in str(error).lower():
            return f"memory: {error}"
        return "refused"
    except Exception as error:
        frames, at = [], error.__traceback__
        while at is not None:
            frames.append(f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}")
            at = at.tb_next
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({' '.join(frames[-4:])})"
    return "read"


class Subject:
    """A valid set of files in a folder, of which one is replaced for each case."""

    def __init__(self, name: str, folder: Path) -> None:
        self.reader: Reader = READERS[name]
        self.folder = folder
        self.path = self.reader.write(folder)
        found = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        files = [p for p in found if p.is_file() and p.stat().st_size and p.name.endswith(self.reader.only or ("",))]
        self.valid = {file: file.read_bytes() for file in files}
        self.files = list(self.valid)
        for target in self.files if self.reader.alone else self.files[:1]:
            if (result := outcome(self.reader.read, target if self.reader.alone else self.path)) != "read":
                raise SystemExit(f"{name}: the valid file fails: {result}")

    def named(self, file: Path) -> str:
        """A file relative to the folder."""
        return file.relative_to(self.folder).as_posix()

    def judge(self, damaged: dict[Path, bytes]) -> str:
        """Outcome of reading with these files in place of valid ones."""
        for file, content in damaged.items():
            file.write_bytes(content)
        if self.reader.sign is not None:
            self.reader.sign(self.path)
        before = _peak()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(WAIT)
        result = outcome(self.reader.read, next(iter(damaged)) if self.reader.alone else self.path)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for file in damaged:
            file.write_bytes(self.valid[file])
        return f"{(_peak() - before) >> 20} MiB of memory ({result})" if _peak() - before > GROWTH else result


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _limit() -> None:
    """Bound what cases may take, and let a case that hangs end the process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _probed(probe: bool) -> Iterator[None]:
    from mrl_jax.data.formats import hdf5, parquet

    before = hdf5.probe_in_worker
    if not probe:
        hdf5.probe_in_worker = parquet.probe_in_worker = lambda *args: None
    yield
    hdf5.probe_in_worker = parquet.probe_in_worker = before


def child(jobs: list[Job], base: Path) -> None:
    """Try cases; prints a line of JSON before and after each."""
    subjects: dict[str, Subject] = {}
    for i, job in enumerate(jobs):
        with _probed(job.probe):
            if job.reader not in subjects:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
                folder = base / slug(job.reader)
                shutil.rmtree(folder, ignore_errors=True)  # of a process that died
                folder.mkdir()
                subjects[job.reader] = Subject(job.reader, folder)
                _limit()  # libraries are imported by now
            subject = subjects[job.reader]
            if job.replay:
                files = [p for p in Path(job.replay).rglob("*") if p.is_file()]
                damaged = {subject.folder / p.relative_to(job.replay): p.read_bytes() for p in files}
                _try(i, job, 0, subject, damaged)
                continue
            for number in range(job.start, job.stop):
                target = subject.files[number % len(subject.files)]
                rng = random.Random(f"{job.reader} {job.seed} {number}")
                _try(i, job, number, subject, {target: mutate(subject.valid[target], rng)})


def _try(i: int, job: Job, number: int, subject: Subject, damaged: dict[Path, bytes]) -> None:
    print(json.dumps([i, number, "started", [subject.named(file) for file in damaged]]), flush=True)
    result = subject.judge(damaged)
    if result not in FINE and job.keep:
        _keep(job, number, subject.folder, {subject.named(file): content for file, content in damaged.items()})
    print(json.dumps([i, number, result]), flush=True)


def _keep(job: Job, number: int, folder: Path, damaged: dict[str, bytes]) -> None:
    for name, content in damaged.items():
        path = Path(job.keep) / slug(job.reader) / f"{job.seed}-{number}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def guided(job: Job, base: Path) -> None:
    """As `child`, with one job, of which atheris chooses what is mutated."""
    import atheris

    with atheris.instrument_imports(include=["mrl_jax"]), _probed(job.probe):
        subject = Subject(job.reader, base)
        _limit()
        corpus = base / ".corpus"
        corpus.mkdir()
        for i, content in enumerate(subject.valid.values()):
            (corpus / str(i)).write_bytes(bytes([i]) + content)  # the file, and what it holds
        tried = job.start

        def one(data: bytes) -> None:
            nonlocal tried
            if tried < job.stop and data:
                target = subject.files[data[0] % len(subject.files)]
                _try(0, job, tried, subject, {target: data[1:]})
                tried += 1

        def mutated(data: bytes, longest: int, seed: int) -> bytes:
            rng = random.Random(f"{job.reader} {job.seed} {seed}")
            at = data[0] % len(subject.files) if data else 0
            if rng.random() < 0.4:  # afresh, of any file
                at = rng.randrange(min(256, len(subject.files)))
                return bytes([at]) + mutate(subject.valid[subject.files[at]], rng)[: longest - 1]
            return bytes([at]) + mutate(data[1:], rng)[: longest - 1]

        longest = 2 * max(map(len, subject.valid.values())) + 4096
        runs = job.stop - job.start + len(subject.files) + 1
        flags = [f"-runs={runs}", f"-seed={job.seed + job.start + 1}", f"-max_len={longest}", "-len_control=0"]
        flags += ["-timeout=1000", "-rss_limit_mb=0", "-handle_segv=0", "-handle_abrt=0", "-detect_leaks=0"]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutated)
        atheris.Fuzz()


def fuzz(jobs: list[Job], seconds: float = float("inf")) -> dict[tuple[int, int], str]:
    """Outcome of each case by (job, number), tried in child processes; if one dies, its last case has failed.

    Args:
        jobs: in this order.
        seconds: so long after the first case no further one begins.
    """
    results: dict[tuple[int, int], str] = {}
    jobs, clock = list(jobs), list[float]()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        left = list(enumerate(jobs))
        while left:
            last = _run_child([job for _, job in left], Path(base), [i for i, _ in left], results, clock, seconds)
            if last is None:
                break
            at, number = last
            i = next(n for n, (own, _) in enumerate(left) if own == at)
            left = left[i:]
            left[0] = (at, left[0][1]._replace(start=number + 1))
            if left[0][1].start >= left[0][1].stop:
                left = left[1:]
    return results


def _run_child(
    jobs: list[Job],
    base: Path,
    numbers: list[int],
    results: dict[tuple[int, int], str],
    clock: list[float],
    seconds: float,
) -> tuple[int, int] | None:
    """Collect what a child says; the (job, number) at which it died, or None if it came to its end."""
    command = [sys.executable, __file__, "--child", str(base)]
    if jobs[0].guided:
        jobs = jobs[:1]
    last: list[Any] = []
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stderr=errors, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([job._asdict() for job in jobs]))
        process.stdin.close()
        for line in process.stdout:
            if not line.startswith("["):
                continue
            last = json.loads(line)
            if last[2] != "started":
                results[numbers[last[0]], last[1]] = last[2]
                clock.append(time.monotonic())
                if clock[-1] > clock[0] + seconds:
                    process.kill()
                    return None
        code = process.wait()
        errors.seek(0)
        message = errors.read().strip().splitlines() or [""]
    if code == 0 or (last and last[2] != "started" and jobs[0].guided and last[1] + 1 >= jobs[0].stop):
        return None
    if not last or last[2] != "started":
        raise RuntimeError("\n".join(message[-20:]))
    i, number, _, names = last
    results[numbers[i], number] = f"process ended by {code}: {message[-1][:200]}"
    if jobs[i].keep:
        folder = base if jobs[i].guided else base / slug(jobs[i].reader)
        _keep(jobs[i], number, folder, {name: (folder / name).read_bytes() for name in names})
    return numbers[i], number


def replay(name: str, folder: Path) -> str:
    """Outcome of files that once failed, in a process of its own."""
    return fuzz([Job(name, replay=str(folder), probe=True)])[0, 0]


def report(name: str, args: argparse.Namespace) -> Counter[str]:
    """Fuzz a reader; prints a line, and one per failure."""
    begun = time.monotonic()
    job = Job(name, args.start, args.start + args.cases, args.seed, keep=str(args.keep), guided=args.guided)
    results = {number: result for (_, number), result in fuzz([job], args.seconds).items()}
    for number, result in sorted(results.items()):
        if result in FINE:
            continue
        kept = args.keep / slug(name) / f"{args.seed}-{number}"
        again = replay(name, kept)  # with a probe
        results[number] = again if again in FINE else "failed"
        if again in FINE and not result.startswith(("process", "memory")) and "MiB" not in result:
            results[number] = "failed"  # it does not repeat
        if results[number] in FINE:
            shutil.rmtree(kept)
        else:
            print(f"  {kept}: {result[:300]}", flush=True)
    counts = Counter(results.values())
    spent = time.monotonic() - begun
    print(f"{name}: {_cells(counts)} in {spent:.0f} s", flush=True)
    return counts


def _cells(counts: Counter[str]) -> str:
    return " | ".join(str(n) for n in (sum(counts.values()), *(counts[k] for k in (*FINE, "failed"))))


def main() -> int:
    """The program; 1 if any case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help="default: all")
    parser.add_argument("--cases", type=int, default=10_000, help="of each reader")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each reader, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--guided", action="store_true", help="let atheris choose what is mutated")
    parser.add_argument("--keep", type=Path, default=Path("failing"), help="folder for inputs that fail")
    parser.add_argument("--table", type=Path, help="page that gets a row per reader, between its marks")
    args = parser.parse_args()
    if unknown := [name for name in args.readers if name not in READERS]:
        parser.error(f"no reader {unknown[0]!r}; choose from {', '.join(READERS)}")
    counts = {name: report(name, args) for name in args.readers or READERS}
    if args.table is not None:
        write_table(args.table, "fuzzing", with_others(table_of(args.table, "fuzzing"), counts))
    return int(any(found["failed"] for found in counts.values()))


def with_others(table: str, counts: dict[str, Counter[str]]) -> str:
    """A table with the counts of these readers in place of those that it has."""
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", table, re.M)) | {n: _cells(c) for n, c in counts.items()}
    lines = ["| reader | cases | read | refused | other |", "|---|--:|--:|--:|--:|"]
    return "\n".join([*lines, *(f"| `{name}` | {rows[name]} |" for name in READERS if name in rows)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        given = [Job(**job) for job in json.loads(sys.stdin.read())]
        (guided(given[0], Path(sys.argv[2])) if given[0].guided else child(given, Path(sys.argv[2])))
    else:
        sys.exit(main())
