"""Damage files of runs, sweeps, prepared sets and indexes: the same numbers as before, or a refusal in one line.

    python tests/faults/damage.py [--tries 5000] [--seed 0] [--start 0] [--kind KIND] [--table docs/reliability.md]

A try copies a folder, damages one of its files, and uses it in this process as the commands do. What comes out is
compared with what comes out of the folder as it was:

    same       the same numbers, where a run resumes after training the lost epochs again
    went back  the same numbers, from the checkpoint before the damaged one, with a warning
    refused    `InputError`, in one line
    SILENT     other numbers, without an error
    TRACEBACK  any other error

Prints one line per try that ends in the last two, with the number that repeats it, and a table. `--table` writes the
table into a page, between its marks. SIGTERM ends it early.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (1, 2)]  # shared test modules, when run as a program
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # small programs, which mostly compile

import jax  # noqa: E402
import numpy as np  # noqa: E402
from layout_files import inria_short, small_set  # noqa: E402
from page_table import write_table  # noqa: E402
from toy import toy_arrays, toy_config  # noqa: E402

from mrl_jax import Index, evaluate, load_run, sweep, train  # noqa: E402
from mrl_jax.data.published import prepared  # noqa: E402
from mrl_jax.data.published.prepare import prepare  # noqa: E402
from mrl_jax.errors import DamageWarning, InputError  # noqa: E402
from mrl_jax.run.folder import RunFolder  # noqa: E402
from mrl_jax.training import loop  # noqa: E402

OUTCOMES = ("same", "went back", "refused", "SILENT", "TRACEBACK")
_LONGEST = 2000  # characters of a message
_DERIVED = ("curves.png", "sweep.csv", "sweep.md", "sweep.png", "summary.json")  # written, never read
_TRACES = ("seconds", "stream_waiting_share")  # of a result: times


class Subject(NamedTuple):
    """What is damaged.

    Attributes:
        whole: the folder as it was.
        other: the same of another seed, from which files are swapped in.
        use: from a folder to what comes out of it.
        expected: what came out of `whole`.
    """

    whole: Path
    other: Path
    use: Callable[[Path], Any]
    expected: Any


def subjects(base: Path, kinds: Collection[str]) -> dict[str, Subject]:
    """What is damaged, made in a folder."""
    made = {}
    for seed in (0, 1):
        folder = base / f"seed{seed}"
        config = toy_config(epochs=3, noise_rate=0.3, seed=seed)
        folder.mkdir()
        if "complete" in kinds:
            train(config, folder / "complete", data=toy_arrays(), keep_checkpoints=True)
        if "killed" in kinds:
            _killed(config, folder / "killed")
        if "sweep" in kinds:
            sweep([toy_config(epochs=2, seed=seed + i) for i in (2, 4)], folder / "sweep", data=toy_arrays())
        if "index" in kinds:
            _index(folder / "index", seed)
        if "prepared" in kinds:
            source = folder / "INRIA-Websearch.mat"
            prepare("inria-websearch", inria_short(source, small_set(seed=seed)), data_dir=folder / "prepared")
    uses = {
        "complete": _read_complete,
        "killed": _resume,
        "sweep": _resume_sweep,
        "prepared": _load_prepared,
        "index": _load_index,
    }
    for name in kinds:
        use = uses[name]
        a, b = base / "seed0" / name, base / "seed1" / name
        if name == "killed":  # used, a folder changes
            shutil.copytree(a, base / "copy")
            expected = use(base / "copy")
            shutil.rmtree(base / "copy")
        else:
            expected = use(a)
        made[name] = Subject(a, b, use, expected)
    return made


class _Kill(BaseException):
    pass


def _killed(config: Any, folder: Path) -> None:
    """A run that ends in its third epoch, with checkpoints of two."""
    log = RunFolder.log

    def log_or_die(self: RunFolder, line: Any) -> None:
        log(self, line)
        if line["epoch"] == 3:
            raise _Kill

    RunFolder.log = log_or_die  # type: ignore[method-assign]
    try:
        train(config, folder, data=toy_arrays(), keep_checkpoints=True)
    except _Kill:
        pass
    finally:
        RunFolder.log = log  # type: ignore[method-assign]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"1", "2"}


def _index(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = Index(8, metadata={"modality": "sound"})
    payloads = [{"name": f"row {i}"} for i in range(40)]
    index.add(rng.normal(size=(40, 8)), ids=np.arange(40), labels=rng.integers(0, 3, 40), payloads=payloads)
    folder.mkdir()
    index.save(folder / "index.npz")


def _plain(value: Any) -> Any:
    """Arrays as bytes, so that values compare bit by bit."""
    return [np.asarray(x).tobytes() if hasattr(x, "dtype") else x for x in jax.tree.leaves(value)]


def _without_times(scores: Any) -> Any:
    return {name: value for name, value in scores.items() if name not in _TRACES}


def _read_complete(path: Path) -> Any:
    """All that `eval`, `audit`, `search` and `report` read of a run."""
    folder, found = RunFolder.open(path), []
    for which in ("kept", "last", 2):
        run = load_run(path, which)
        found.append((run.epoch, _plain(run.model), run.class_names, run.modalities))
        if which == "kept":
            found.append(evaluate(path, toy_arrays()))
    files = folder.config(), folder.data(), folder.noise(), folder.metrics(), folder.lengths(), _plain(folder.samples())
    return found, files, _without_times(folder.result() or {})


def _resume(path: Path) -> Any:
    folder = RunFolder.open(path)
    result = train(folder.config(), path, data=toy_arrays(), resume=True, keep_checkpoints=True)
    lines = (path / "metrics.jsonl").read_bytes()
    files = folder.data(), folder.noise(), _plain(folder.samples())
    return _without_times(result.scores), lines, _plain(result.run.model), files


def _resume_sweep(path: Path) -> Any:
    found = sweep([toy_config(epochs=2, seed=seed) for seed in (2, 4)], path, data=toy_arrays(), resume=True)
    # Only `trained_together` may be missing of a run that was lost and trained again.
    return [(name, run.scores and run.scores["test"], run.metrics) for name, run in found.runs.items()]


def _load_prepared(path: Path) -> Any:
    prepared._sound.clear()  # as in a new process
    data = prepared.load("inria-websearch", (), path)
    metadata = {name: value for name, value in data.metadata.items() if name != "prepared"}
    return [(k, x.tobytes(), x.shape) for k, x in data.arrays().items()], data.class_names, data.modalities, metadata


def _load_index(path: Path) -> Any:
    index = Index.load(path / "index.npz")
    queries = np.random.default_rng(9).normal(size=(3, 8))
    found = index.search(queries, 5)
    return _plain(vars(found)), index.metadata, index.metric, index.payloads


def flip_bit(path: Path, _: Path, rng: np.random.Generator) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def zero_block(path: Path, _: Path, rng: np.random.Generator) -> None:
    """A block of up to 512 bytes becomes zero."""
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    block = len(content[start : start + int(rng.integers(1, 513))])
    content[start : start + block] = bytes(block)
    path.write_bytes(content)


def truncate(path: Path, _: Path, rng: np.random.Generator) -> None:
    """The end is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])


def change_digits(path: Path, _: Path, rng: np.random.Generator) -> None:
    """One digit becomes another one."""
    content = bytearray(path.read_bytes())
    if places := [i for i, c in enumerate(content) if 48 <= c < 58]:
        at = places[rng.integers(len(places))]
        content[at] = 48 + (content[at] - 48 + int(rng.integers(1, 10))) % 10
    else:
        content[rng.integers(len(content))] ^= 1
    path.write_bytes(content)


def remove(path: Path, _: Path, rng: np.random.Generator) -> None:
    """The file is gone."""
    path.unlink()


def swap(path: Path, other: Path, rng: np.random.Generator) -> None:
    """The file of another run."""
    shutil.copyfile(other, path)


_ODD = ("[" * 5000 + "]" * 5000, "null", "1e400", "1" * 400, '"' + "x" * 5000 + '"', "[]", "{}", "-1", "true", "[[3]]")


def odd_value(path: Path, _: Path, rng: np.random.Generator) -> None:
    """A value in JSON becomes another: of another type, too deep, or beyond float. Other files grow."""
    content = path.read_bytes()
    odd = _ODD[rng.integers(len(_ODD))].encode()
    places = [m.span(1) for m in re.finditer(rb'": ("[^"]*"|[-\d.e]+|true|false|null|\[[^][]*\])', content)]
    if path.suffix in (".json", ".jsonl") or path.name in ("metrics", "_METADATA", "_CHECKPOINT_METADATA"):
        start, end = places[rng.integers(len(places))] if places else (0, len(content))
        path.write_bytes(content[:start] + odd + content[end:])
    else:
        path.write_bytes(content + odd)


DAMAGES = (flip_bit, zero_block, truncate, change_digits, remove, swap, odd_value)


def files_of(folder: Path) -> list[Path]:
    """The files that are read, relative to a folder, and not empty."""
    found = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    return [p for p in found if p.name not in _DERIVED]


def counterpart(subject: Subject, file: Path) -> Path | None:
    """The same file of the other folder; arrays of a checkpoint have names by chance, and are taken in their order."""
    other = subject.other / file
    if other.is_file():
        return other
    siblings = sorted((subject.whole / file.parent).glob("*"))
    others = sorted((subject.other / file.parent).glob("*"))
    at = siblings.index(subject.whole / file)
    return others[at] if at < len(others) and others[at].is_file() else None


def attempt(subject: Subject, number: int, seed: int, place: Path) -> tuple[str, str, str]:
    """One try: the kind of damage, its outcome, and what happened."""
    rng = np.random.default_rng([seed, number])
    files = files_of(subject.whole)
    file, damage = files[rng.integers(len(files))], DAMAGES[rng.integers(len(DAMAGES))]
    other = counterpart(subject, file)
    if damage is swap and (
        subject.use is _load_index or other is None or other.read_bytes() == (subject.whole / file).read_bytes()
    ):
        damage = flip_bit
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(subject.whole, place)
    damage(place / file, other or Path(), rng)
    what, outcome = "", "same"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = subject.use(place)
        except InputError as error:
            what, outcome = str(error), "refused" if len(str(error)) < _LONGEST else "TRACEBACK"
        except Exception as error:
            what, outcome = f"{type(error).__name__}: {error}", "TRACEBACK"
        else:
            if found != subject.expected:
                outcome = "SILENT"
            elif any(w.category is DamageWarning and "goes on from" in str(w.message) for w in caught):
                outcome = "went back"
    return damage.__name__, outcome, f"{file}: {what[:300]}"


def run(tries: int, seed: int = 0, start: int = 0, kinds: tuple[str, ...] = (), shown: bool = True) -> Any:
    """Counts of (subject, damage, outcome), and the lines of the tries that failed."""
    counts: Counter[tuple[str, str, str]] = Counter()
    failed = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        # A checkpoint after every epoch, so that there are two.
        before = loop._INTERVAL, loop._TIME_FRACTION
        loop._INTERVAL, loop._TIME_FRACTION = 0.0, float("inf")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the prepared set is smaller than the published one
                made = subjects(Path(base), kinds or tuple(TITLES))
            names = list(made)
            began = time.monotonic()
            for number in range(start, start + tries):
                name = names[number % len(names)]
                damage, outcome, what = attempt(made[name], number, seed, Path(base) / "place")
                counts[name, damage, outcome] += 1
                if outcome in OUTCOMES[3:]:
                    failed.append(f"--kind {name} --seed {seed} --start {number} --tries 1: {damage} {outcome} {what}")
                    if shown:
                        print(failed[-1], flush=True)
                if shown and (number + 1 - start) % 500 == 0:
                    print(f"{number + 1 - start} tries, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("stopped; what was tried so far:", file=sys.stderr)
        finally:
            loop._INTERVAL, loop._TIME_FRACTION = before
    return counts, failed


TITLES = {
    "complete": "complete run, evaluated",
    "killed": "killed run, resumed",
    "sweep": "sweep, resumed",
    "prepared": "prepared set, loaded",
    "index": "search index, loaded",
}


def table(counts: Counter[tuple[str, str, str]]) -> str:
    """The counts as a table in Markdown."""
    rows = ["| what is damaged | how | tries | same numbers | went back | refused | silent | traceback |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|--:|")
    groups = [(s, d) for s in TITLES for d in (f.__name__ for f in DAMAGES) if any(k[:2] == (s, d) for k in counts)]
    for subject, damage in groups:
        numbers = [counts[subject, damage, outcome] for outcome in OUTCOMES]
        cells = [TITLES[subject], damage.replace("_", " "), sum(numbers), *numbers]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    numbers = [sum(n for key, n in counts.items() if key[2] == outcome) for outcome in OUTCOMES]
    rows.append(f"| all | | {' | '.join(map(str, [sum(numbers), *numbers]))} |")
    return "\n".join(rows)


def main() -> int:
    """The program; 1 if any try ended in silence or a traceback."""
    parser = argparse.ArgumentParser(description="Damage files of runs, sets and indexes.")
    parser.add_argument("--tries", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first try")
    parser.add_argument("--kind", action="append", choices=TITLES, default=[], help="what is damaged; default: all")
    parser.add_argument("--table", type=Path, help="page that gets the table, between its marks")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    counts, failed = run(args.tries, args.seed, args.start, tuple(args.kind))
    print(table(counts))
    if args.table is not None:
        write_table(args.table, "damage", table(counts))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
