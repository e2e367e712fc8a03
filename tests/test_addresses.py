"""An address, such as https://…, is no path: every flag and function that takes a path says so in one line."""

import importlib

import pytest

from mrl_jax import Config, InputError, Searcher, load_run, preset, sweep, train
from mrl_jax.cli import Parser
from mrl_jax.cut_options import key_entries
from mrl_jax.data.cache import cache_folder
from mrl_jax.data.featurize.pipeline import featurize
from mrl_jax.eval.embeddings import read_embeddings
from mrl_jax.files import refuse_address, write_atomically
from mrl_jax.options import FILE_FIELDS
from mrl_jax.search.query import query_features
from mrl_jax.sweep.folder import SweepFolder

COMMANDS = ("train", "sweep", "eval", "search", "data", "report")
PLACES = ("FILE", "DIR", "FOLDER", ("A", "B"))  # metavars of flags that take paths
OUTPUTS = ("--json", "--csv", "--per-query", "--plot", "--png", "--output", "--html")


class SeenError(Exception):
    pass


def parser_of(main, monkeypatch):
    def stop(parser, args=None, namespace=None):
        raise SeenError(parser)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        with pytest.raises(SeenError) as caught:
            main([])
    return caught.value.args[0]


def path_flags(parser, before=()):
    """Words before a flag, and the flag, of every flag of a parser that takes a path."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, sub in action.choices.items():
                yield from path_flags(sub, (*before, name))
        elif action.option_strings and (action.metavar in PLACES or action.dest in FILE_FIELDS):
            yield before, action.option_strings[0], action.nargs


@pytest.mark.parametrize("address", ["https://x.org/a b", "s3://bucket/a", "gs://bucket/a", "file:///data/a"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_that_takes_a_path_refuses_an_address(command, address, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("mrl_jax.train" if command == "train" else f"mrl_jax.{command}.__main__")
    flags = list(path_flags(parser_of(module.main, monkeypatch)))
    assert len(flags) >= 4
    capsys.readouterr()
    for before, flag, count in flags:
        assert module.main([*before, flag, *[address] * (count if isinstance(count, int) else 1)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"'{address}' is an address; " in line
        assert flag in line or flag[2:].replace("-", "_") in line  # a field of the configuration
        if address.startswith("file"):
            assert "give the path alone: /data/a" in line
        elif flag in OUTPUTS or (command in ("train", "sweep") and flag == "--workdir"):
            assert "files are written on this machine only: give a path" in line
        else:
            assert "download it first, and give its path" in line
    assert list(tmp_path.iterdir()) == []


def test_every_function_that_takes_a_path_refuses_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "https://x.org/a"
    config = preset("emoji")
    calls = [
        lambda: train(config, url),
        lambda: train(config, url, resume=True),
        lambda: sweep([config], url),
        lambda: SweepFolder.open(url),
        lambda: load_run(url),
        lambda: Searcher(url),
        lambda: query_features(None, "image", url),
        lambda: read_embeddings(url),
        lambda: write_atomically(tmp_path / "x" / url, ""),
        lambda: cache_folder(url),
        lambda: key_entries("https://x.org/keys.json?a=b"),
        lambda: Config(keys=("https://x.org/keys.json",)),
        *[lambda name=name: Config(**{name: url}) for name in FILE_FIELDS if name != "noise_matrix"],
        *[
            lambda at=at: featurize(*(url if i == at else "a.npz" for i in range(3)), image_model="a", text_model="b")
            for at in range(3)
        ],
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"'https://x\.org/[\w.?=]+' is an address; ") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a.npz", "/x/a.npz", "C:/x", "C:\\x", "a:b", "http.npz", "s3/x", "https:", "2:/x"])
def test_paths_are_no_addresses(path):
    refuse_address(path)
