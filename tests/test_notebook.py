"""What notebooks show of objects: short texts, and HTML in which names from data are only text."""

import io
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy import toy_arrays, toy_config

from mrl_jax import InputError, Recipe, TrainState, grid, init_state, load_dataset, sweep, train
from mrl_jax.audit import audit
from mrl_jax.notebook import table_html
from mrl_jax.sweep.results import Sweep

pytestmark = pytest.mark.slow
EVIL = "<script>alert(1)</script>"


class Shown(HTMLParser):
    """The tags of HTML, each of which must be closed, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data}\n"


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(toy_arrays() | {"class_names": np.array(["low", "mid", EVIL])})


@pytest.fixture(scope="module")
def result(dataset):
    return train(toy_config(noise_rate=0.4), data=dataset)


@pytest.fixture(scope="module")
def swept(dataset):
    return sweep(grid(toy_config(epochs=1), noise_rate=[0.2, 0.6], seed=[0]), data=dataset)


@pytest.fixture(scope="module")
def audited(dataset):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    views = [np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)) for _ in range(2)]
    given = np.stack([np.where(np.arange(60) % 9 == 0, (labels + 1) % 3, labels), labels])
    return audit(given, z=views, class_names=list(dataset.class_names))


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("dataset", ["sound [6] + touch [4]", "60 train / 24 valid / 27 test", EVIL]),
        ("result", ["mrl", "symmetric noise 0.4", "sound->touch", "best, epoch"]),
        ("swept", ["2 runs", "2 complete", "noise rate", "0.6"]),
        ("audited", ["120", "suggested", EVIL]),
    ],
)
def test_html_has_the_facts_and_escapes_names_from_data(request, name, texts):
    shown = Shown(request.getfixturevalue(name)._repr_html_())
    assert set(shown.tags) <= {"div", "b", "table", "tr", "th", "td", "p"}
    for text in texts:
        assert text in shown.text


def test_a_sweep_without_scores_has_no_empty_table(swept):
    for found in (Sweep({}, None), swept):
        assert "<table></table>" not in found._repr_html_()
    assert Shown(Sweep({}, None)._repr_html_()).tags == ["div", "b"]


def test_texts_are_short(dataset, result, swept, audited):
    rows = "features sound [6] + touch [4], classes 3, rows 60 train / 24 valid / 27 test"
    assert repr(dataset) == f"Dataset(name {dataset.name}, {rows})"
    best = result.scores["test"]["best"]
    assert f"test mAP best {best['average']:.3f} (epoch {best['epoch']})" in repr(result)
    assert repr(swept) == "Sweep(2 runs, 2 complete)"
    assert repr(result.run) == (
        f"TrainedModel(method mrl, modalities sound + touch, classes 3, epoch {result.run.epoch}, embedding [8])"
    )
    assert repr(audited).startswith("Audit(method consensus, samples 120, classes 3, wrong ")
    assert Shown(result.run._repr_html_()).text.startswith("TrainedModel\nmethod\nmrl\n")
    assert all(len(repr(x)) < 400 for x in (dataset, result, swept, audited))
    rows = [["a"], *([i] for i in range(31))]
    assert Shown(table_html(rows)).tags.count("tr") == 31
    assert Shown(table_html(rows)).text.endswith("… 31 rows in all\n")
    assert Shown(table_html(rows, most=31)).tags.count("tr") == 32


def test_a_state_shows_its_numbers_wherever_it_is():
    recipe = Recipe(hidden_dims=(4,), embed_dim=2)
    state = init_state(jax.random.key(0), [3, 5], 2, recipe)
    numbers = sum(x.size for x in jax.tree.leaves(state.params))
    assert isinstance(state, TrainState)
    assert repr(state).startswith(f"State(step 0, params {numbers} numbers, optimizer ")
    assert "[3, 4]" in state._repr_html_()
    jax.jit(lambda state: pytest.fail(repr(state)) if "step unknown" not in repr(state) else 0)(state)
    donated = jax.jit(lambda state: jax.tree.map(jnp.add, state, state), donate_argnums=0)
    donated(state)
    assert "State(step unknown" in repr(state)


@pytest.mark.parametrize("name", ["result", "swept"])
def test_plots_are_figures_that_notebooks_show(request, tmp_path, name):
    drawn = request.getfixturevalue(name)
    figure = drawn.plot(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as written, Image.open(io.BytesIO(drawn.plot()._repr_png_())) as shown:
        assert written.size == shown.size
        assert min(written.size) > 200
    if name == "result":
        valid = [line for line in figure.axes[1].lines if line.get_label() == "sound → touch"]
        values = [line["valid"]["map"]["sound->touch"] for line in drawn.metrics]
        np.testing.assert_allclose(valid[0].get_ydata(), values)
        assert figure.axes[1].lines[-1].get_ydata()[0] == pytest.approx(drawn.chance)


def test_a_sweep_without_a_complete_run_has_no_plot(swept):
    nothing = Sweep({}, None)
    assert Shown(nothing._repr_html_()).text.startswith("Sweep, 0 runs, 0 complete")
    with pytest.raises(InputError, match="no run of the sweep is complete"):
        nothing.plot()
