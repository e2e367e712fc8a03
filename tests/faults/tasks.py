"""The commands that faults befall, each with tiny data, and what they leave when nothing befalls them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from client import Done, Worker
from layout_files import inria_short, small_set
from toy import TOY_FLAGS, save_npz


class Task(NamedTuple):
    """A command that writes.

    Attributes:
        name: what the table calls it, and `outcomes.py`.
        argv: from a folder, the command that writes there.
        begun: a file of the folder; once it is there, `--resume` continues. "" for commands that are repeated.
        needs_run: whether the folder holds a complete run before.
        env: from a folder, environment variables.
    """

    name: str
    argv: Callable[[Path], list[str]]
    begun: str = ""
    needs_run: bool = False
    env: Callable[[Path], dict[str, str]] = lambda folder: {}

    def again(self, folder: Path) -> list[str]:
        """The command that continues, or repeats."""
        return self.argv(folder) + (["--resume"] if self.begun and (folder / self.begun).exists() else [])


def _task(name: str, arguments: list[str], command: str = "", **facts: Any) -> Task:
    """A task whose arguments have `{at}` for the folder."""
    return Task(name, lambda at: [command or name, *(x.replace("{at}", str(at)) for x in arguments)], **facts)


class Reference(NamedTuple):
    """An undisturbed command: its outcome, its changes in the folder, seconds, and bytes that it leaves."""

    outcome: str
    events: int
    seconds: float
    size: int


class Bench:
    """A folder with data, a worker, and the outcomes of undisturbed commands.

    Args:
        folder: the folder, empty.
        names: tasks to prepare; none for all.
    """

    def __init__(self, folder: Path, names: tuple[str, ...] = ()) -> None:
        self.folder, self.place, self.image = folder, folder / "place", folder / "image"
        self.worker, self.second = Worker(folder), Worker(folder)
        npz, mat = save_npz(folder / "toy.npz"), inria_short(folder / "INRIA-Websearch.mat", small_set())
        data = ["--data-path", str(npz), *TOY_FLAGS]
        run = ["--workdir", "{at}/run"]
        grid = ["--seeds", "2", "--noise-rates", "0.3", "--workdir"]
        found = ["--row", "sound:test:0", "--modality", "touch", "--json", "{at}/found.json"]
        tasks = (
            _task("train", [*data, "--noise-rate", "0.3", *run], begun="run/config.json"),
            _task("eval", [*run, "--json", "{at}/scores.json", "--csv", "{at}/scores.csv"], needs_run=True),
            _task("search", [*run, *found], needs_run=True),
            _task("prepare", ["prepare", "inria-websearch", "--data-path", str(mat)], "data")._replace(
                env=lambda at: {"MRL_JAX_DATA_DIR": str(at)}
            ),
            _task("sweep", [*data, *grid, "{at}/sweep"], begun="sweep/sweep.json"),
            _task(
                "leaderboard", [*data, "--methods", "mrl", "cca", *grid, "{at}/board"], begun="board/leaderboard.json"
            ),
        )
        self.tasks = {task.name: task for task in tasks if not names or task.name in names}
        self.run = folder / "run"
        if any(task.needs_run for task in self.tasks.values()):
            self.command(tasks[0], tasks[0].argv(folder), folder, check=True)
        self.references = {name: self._reference(task) for name, task in self.tasks.items()}

    def close(self) -> None:
        """End the workers."""
        self.worker.kill()
        self.second.kill()

    def fresh(self, task: Task) -> Path:
        """An empty place for a task, or one with a run; the image is deleted."""
        for path in (self.place, self.image):
            shutil.rmtree(path, ignore_errors=True)
        self.place.mkdir()
        self.furnish(task)
        return self.place

    def furnish(self, task: Task) -> None:
        """Put into the place what a task needs."""
        if task.needs_run:
            shutil.copytree(self.run, self.place / "run", symlinks=True)

    def take_image(self) -> None:
        """Copy the place, as a process that dies now leaves it; the first copy counts."""
        if not self.image.exists():
            shutil.copytree(self.place, self.image, symlinks=True)

    def use_image(self) -> None:
        """Put the image in the place of what was written since."""
        shutil.rmtree(self.place)
        self.image.rename(self.place)

    def command(self, task: Task, argv: list[str], at: Path, check: bool = False, **how: object) -> Done:
        """Run a command of a task in the first worker."""
        done = self.worker.run(argv, at, env=task.env(at), **how)  # type: ignore[arg-type]
        if check and done.code:
            raise RuntimeError(f"the undisturbed command failed: {argv}\n{done.text}")
        return done

    def finished(self, task: Task) -> str:
        """Continue a disturbed task; what is wrong, or "" if it leaves what the undisturbed one leaves."""
        done = self.command(task, task.again(self.place), self.place)
        if done.code:
            return f"again: exit code {done.code}: {done.last}"
        found = self.worker.outcome(task.name, self.place)
        if found == self.references[task.name].outcome:
            return ""
        return found if " " in found else "SILENT: other numbers"

    def _reference(self, task: Task) -> Reference:
        found = []
        for _ in range(2):  # the first compiles
            self.fresh(task)
            done = self.command(task, task.argv(self.place), self.place, check=True)
            found.append(self.worker.outcome(task.name, self.place))
        if found[0] != found[1] or " " in found[0]:
            raise RuntimeError(f"{task.name}: undisturbed commands differ: {found}")
        size = sum(path.stat().st_size + 4096 for path in self.place.rglob("*"))
        return Reference(found[0], done.events, done.seconds, size)
