"""The order of the rooms: imports run downwards, without circles. `docs/architecture.md` draws it."""

import ast
from pathlib import Path

import pytest

import mrl_jax

ROOT = Path(mrl_jax.__file__).parent
# From the ground up: a room imports those before it in this list, and its own modules. A file may be a room of its
# own; `methods.registry` is the list of methods, which imports none of them.
ROOMS = (
    "version", "names", "errors", "backend", "interface", "interrupt", "json_files", "files", "checksums", "notebook",
    "packages", "tensors", "unit_rows", "methods.registry", "cut_options", "options", "compile_cache", "config_formats",
    "config", "cli", "data", "retrieval", "metrics", "noise", "losses", "models", "label_inference", "methods", "run",
    "display", "training", "track", "train_step", "eval", "search", "sweep", "leaderboard", "train", "audit", "report",
    "audit.__main__", "export", "__main__",
)  # fmt: skip


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, path


NAMES = dict(modules())


def room_of(name):
    return max((room for room in ROOMS if name == room or name.startswith(f"{room}.")), key=len, default=None)


def type_checking_lines(tree):
    """Lines that only a type checker reads."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    return {line for b in blocks for n in b.body for line in range(n.lineno, n.end_lineno + 1)}


def imports_of(path):
    """The modules of the package that a file imports, in functions too."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = type_checking_lines(tree)
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("mrl_jax.") for a in node.names if a.name.startswith("mrl_jax."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mrl_jax":
            base = node.module.removeprefix("mrl_jax").removeprefix(".")
            for a in node.names:
                full = f"{base}.{a.name}".removeprefix(".")
                yield full if full in NAMES else base


GRAPH = {name: set(imports_of(path)) - {name, ""} for name, path in NAMES.items() if name}


def test_every_module_is_in_a_room():
    assert not [name for name in GRAPH if room_of(name) is None]


def test_imports_run_downwards():
    upwards = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if ROOMS.index(room_of(other)) > ROOMS.index(room_of(name))
    ]
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    done, circles = set(), []

    def visit(name, path):
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for other in sorted(GRAPH.get(name, ())):
                visit(other, [*path, name])
            done.add(name)

    for name in GRAPH:
        visit(name, [])
    assert not circles


def test_only_the_registry_and_the_methods_name_a_method():
    """No other file asks which method it is: none compares with the name of one."""
    from mrl_jax.methods.registry import METHODS

    asking = []
    for name, path in NAMES.items():
        if name.startswith(("methods", "config_formats")):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            values = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            if any(isinstance(v, ast.Constant) and v.value in METHODS for v in values):
                asking.append(f"{name}:{node.lineno}")
    assert not asking


# Rooms that know MRL, and settings of single methods: outside of them no file asks which method or loss a run has, or
# reads a field that not every method has.
KNOW_METHODS = (
    "methods", "losses", "models", "options", "config", "config_formats", "train_step", "run.format1"
)  # fmt: skip
FIELDS = ("hidden_dims", "centers", "tau1", "tau2", "beta", "loss")
# module, field (or "comparison") -> why it may
EXCEPTIONS = {
    ("cli", "tau1"): "the flag --tau stands for two fields",
    ("cli", "tau2"): "the flag --tau stands for two fields",
    ("sweep.__main__", "comparison"): "more runs of a sweep are added method by method",
    ("sweep.names", "comparison"): "names of runs say which settings differ",
    ("sweep.names", "beta"): "names of runs say which settings differ",
    ("sweep.names", "tau1"): "equal temperatures have one name",
    ("sweep.names", "tau2"): "equal temperatures have one name",
}


def method_specific(tree):
    """Field or "comparison", and line, where a file reads a field of some methods, or compares with a name of one."""
    from mrl_jax.methods.registry import METHODS
    from mrl_jax.options import LOSSES

    names = {*METHODS, *LOSSES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FIELDS:
            yield node.attr, node.lineno
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            collections = [x for x in operands if isinstance(x, ast.Tuple | ast.List | ast.Set)]
            operands += [x for of_one in collections for x in of_one.elts]
            if any(isinstance(x, ast.Constant) and x.value in names for x in operands) or any(
                isinstance(x, ast.Attribute) and x.attr == "method" for x in operands
            ):
                yield "comparison", node.lineno


def test_only_some_rooms_know_which_method_it_is():
    reads = {
        (name, field): line
        for name, path in NAMES.items()
        if name and not any(name == room or name.startswith(f"{room}.") for room in KNOW_METHODS)
        for field, line in method_specific(ast.parse(path.read_text("utf-8")))
    }
    assert not [f"{name}:{line} {field}" for (name, field), line in reads.items() if (name, field) not in EXCEPTIONS]
    assert not [exception for exception in EXCEPTIONS if exception not in reads], "no longer needed"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("c.method == Config.method", ["comparison"]),
        ("'elr' == name", ["comparison"]),
        ("name in ('mrl', 'x')", ["comparison"]),
        ("params.centers", ["centers"]),
        ("run.config.loss == 'gce'", ["comparison", "loss"]),
        ("self.method.fit is not None", []),
        ("metrics['loss'], method_of(c)", []),
    ],
)
def test_what_counts_as_knowing_a_method(code, expected):
    assert [field for field, _ in method_specific(ast.parse(code))] == expected


def test_faces_hold_no_logic():
    for name, path in NAMES.items():
        if path.name != "__init__.py" or not name:
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_names = isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
            assert is_text or is_names or isinstance(node, ast.ImportFrom), f"{name}, line {node.lineno}"
