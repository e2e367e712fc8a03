"""The page of an audit: what it says of data whose wrong labels are known, and its command."""

import csv
import re
import shlex
from itertools import pairwise

import numpy as np
import pytest
from report_runs import HOSTILE, Page, hostile_arrays
from toy import SIZES, save_npz, toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.audit.__main__ import main
from mrl_jax.audit.run import audit_data, audit_run
from mrl_jax.report import page as page_module
from mrl_jax.report import write_audit_page
from mrl_jax.report.blocks import Table
from mrl_jax.report.samples import Samples
from mrl_jax.report.sections.audit_pairs import duplicate_section
from mrl_jax.report.sections.audited import headline, noise_section
from mrl_jax.report.sections.suspects import suspect_table

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_library")]
SECTIONS = ["suspects", "classes", "transition", "duplicates", "outliers", "merged", "clean", "reproduce"]
FLIPPED = (1, 17, 33)
"""Training rows whose label of "touch" is wrong."""


def wrong_arrays(arrays):
    """Arrays with three wrong labels of "touch", and a training instance that is in the test split, too."""
    labels = arrays["train_labels"].copy()
    arrays = {k: v.copy() for k, v in arrays.items() if k != "train_labels"}
    sound = next(k for k in arrays if k.startswith("train_") and "sound" in k)[len("train_") :]
    arrays[f"train_{sound}_labels"], arrays["train_touch_labels"] = labels, labels.copy()
    arrays["train_touch_labels"][list(FLIPPED)] = (labels[list(FLIPPED)] + 1) % 3
    for m in (sound, "touch"):
        arrays[f"test_{m}"][4] = arrays[f"train_{m}"][7]
    return arrays


@pytest.fixture(scope="module")
def audited():
    """The audit of data of one's own, whose names break out of a page that does not escape them."""
    return audit_data(load_dataset(wrong_arrays(hostile_arrays())))


def page_of(path):
    return Page(path.read_text("utf-8"))


def suspects_of(page):
    """The cells of the table of suspects, as text; tags of cells hold no other table."""
    section = page.html.split('<section id="suspects">')[1].split("</section>")[0]
    return re.findall(r"<tr>(.*?)</tr>", section.split("<tbody>")[1], re.DOTALL)


def test_the_page_of_hostile_data(audited, tmp_path):
    page = page_of(write_audit_page(audited, tmp_path / "audit.html"))
    assert page.sections == SECTIONS
    assert page.tags.count("script") == 3
    assert "img" not in page.tags  # neither a picture nor one of the hostile names
    assert "<b>sound" not in page.html
    for name in HOSTILE:
        assert name in page.text
    assert headline(audited.audit)[0] in page.text
    assert "--data-path FILE" in page.text


def test_wrong_labels_come_first_with_their_true_class(audited):
    lines = audited.audit.suspects(3)
    table = suspect_table(lines, Samples(audited.data), "caption")
    assert table.head[:4] == ("sample", "modality", "given label", "suggested label")
    assert [table.head[i] for i in table.filters] == ["modality", "given label", "suggested label"]
    assert "true label" not in table.head  # nobody knows them
    names = audited.data.class_names
    truth = hostile_arrays()["train_labels"]
    assert {line["row"] for line in lines} == set(FLIPPED)
    for line, row in zip(lines, table.rows, strict=True):
        at = line["row"]
        assert row[0].sample.id == audited.data.splits["train"].ids[at]
        assert f"row {at}" in row[0].more
        assert [c.text for c in row[1:4]] == ["touch", names[(truth[at] + 1) % 3], names[truth[at]]]
        assert row[table.head.index("p(wrong)")].sort == pytest.approx(line["p_wrong"])
        assert row[table.head.index("agreement")].text == "0.0%"
    assert suspect_table([], Samples(audited.data), "caption") is None


def test_neighbours_have_a_green_frame_if_they_vote_for_the_suggestion(audited, tmp_path):
    audit = audited.audit
    rows = suspects_of(page_of(write_audit_page(audited, tmp_path / "audit.html")))
    lines = audit.suspects(1000)
    assert len(rows) == len(lines)
    index = {name: k for k, name in enumerate(audit.class_names)}
    for row, line in zip(rows, lines, strict=True):
        votes = [index[line["suggested"]] in audit.given[:, j] for j in line["neighbours"]]
        assert re.findall(r'<li class="(hit|miss)"', row) == ["hit" if vote else "miss" for vote in votes]
        assert len(votes) == 5


def test_the_number_of_suspects_is_bounded_and_said(audited, tmp_path):
    page = page_of(write_audit_page(audited, tmp_path / "audit.html", top=1))
    count = len(audited.audit.suspects(1000))
    assert len(suspects_of(page)) == min(2, len({s["modality"] for s in audited.audit.suspects(1000)}))
    assert f"of {count} suspects: of each modality the first 1;" in page.text


def test_pairs_across_splits_come_first_and_name_both_ends(audited):
    section = duplicate_section(audited.audit, Samples(audited.data))
    (table,) = (b for b in section.blocks if isinstance(b, Table))
    across = [row[2].text != "train" for row in table.rows]
    assert across == sorted(across, reverse=True)
    (found,) = (row for row in table.rows if {c.more.split(" · ")[0] for c in row[:2]} == {"train 7", "test 4"})
    one, other, _, modalities, labels, similarity = found
    assert modalities.text == "<b>sound, touch"
    assert similarity.sort == pytest.approx(1.0, abs=1e-5)
    same = hostile_arrays()["train_labels"][7] == hostile_arrays()["test_labels"][4]
    assert labels.text == ("same" if same else "different")
    assert (one.more.split(" · ")[1] == other.more.split(" · ")[1]) == same


def test_heat_maps_are_what_labels_are_believed_to_be(audited, tmp_path):
    charts = page_of(write_audit_page(audited, tmp_path / "audit.html")).data["charts"]
    assert len(charts) == 4  # given against believed, and transitions, of two modalities
    names, posterior = audited.data.class_names, audited.audit.posterior[1]
    given = audited.audit.given[1]
    believed = {(c["r"], c["c"]): c["v"] for c in charts[1]["data"]["values"]}
    for k, name in enumerate(names):
        right = believed[name, name]
        assert sum(believed[name, other] for other in names) == pytest.approx(1.0, abs=1e-4)
        # Counts have the estimated noise rate, so that only the order is that of the posterior.
        assert (right > 0.9) == (posterior[given == k, k].mean() > 0.8)
    moved = {(c["r"], c["c"]): c["v"] for c in charts[3]["data"]["values"]}
    for k, a in enumerate(names):
        for y, b in enumerate(names):
            assert moved[a, b] == pytest.approx(audited.audit.noise.transition[1, k, y], rel=1e-4)


def test_confusions_have_the_intervals_of_their_probability(audited):
    noise, names = audited.audit.noise, audited.data.class_names
    tables = [b for b in noise_section(audited.audit).blocks if isinstance(b, Table)]
    for row in tables[0].rows if tables else ():
        believed, given, modality = (cell.text for cell in row[:3])
        at = audited.audit.modalities.index(modality), names.index(believed), names.index(given)
        low, high = noise.transition_low[at], noise.transition_high[at]
        assert row[4].more == f"[{low:.3f}, {high:.3f}]"
        assert low <= row[4].sort <= high
    counts = [row[3].sort for row in tables[0].rows] if tables else []
    assert all(a >= b for a, b in pairwise(counts))


def test_the_page_of_a_run_knows_what_was_injected(noisy, arrays, tmp_path):
    found = audit_run(noisy, data=arrays)
    page = page_of(write_audit_page(found, tmp_path / "audit.html", data=arrays))
    assert page.sections == SECTIONS
    assert "true label" in page.text
    assert f"AUROC of {found.audit.injected['all']['auroc']:.3f}" in page.text
    assert f"--workdir {noisy} --write-cleaned clean.npz" in page.text
    assert "python -m mrl_jax.train custom" in page.text
    share = 1.0 - found.audit.noise.rate.mean()
    assert f"--keep {share:.2f}".rstrip("0") in page.text


def test_many_classes_are_reduced_in_the_heat_maps(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 40
    means = 4.0 * rng.normal(size=(40, 16))
    arrays = {f"train_{m}": (means[labels] + rng.normal(size=(160, 16))).astype(np.float32) for m in ("a", "b")}
    arrays |= {f"{s}_{m}": arrays[f"train_{m}"][:40] for s in ("valid", "test") for m in ("a", "b")}
    arrays |= {"train_labels": labels, "valid_labels": labels[:40], "test_labels": labels[:40]}
    page = page_of(write_audit_page(audit_data(load_dataset(arrays), neighbours=0), tmp_path / "audit.html"))
    assert "The 30 of 40 classes with the most wrong labels are shown." in page.text
    assert {len({c["r"] for c in chart["data"]["values"]}) for chart in page.data["charts"]} == {30}
    assert "neighbours" not in page.text.split("By class")[1].split("Noise")[0]


def test_the_command_writes_the_page_with_commands_that_a_shell_takes(tmp_path, capsys):
    data = save_npz(tmp_path / "my toy.npz", wrong_arrays(toy_arrays()))
    html, table = tmp_path / "a.html", tmp_path / "a.csv"
    assert main(["--data-path", str(data), "--method", "votes", "--html", str(html), "--csv", str(table)]) == 0
    assert "estimated noise rate" in capsys.readouterr().out
    page = page_of(html)
    assert f"python -m mrl_jax.audit --data-path '{data}' --method votes --html {html}" in page.text
    first = next(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert f"row {first['row']}" in suspects_of(page)[0]


def test_texts_are_shown_and_files_that_name_no_sample_are_refused(tmp_path, capsys):
    ids = {f"{s}_ids": np.array([f"{s}-{i}" for i in range(n)]) for s, n in SIZES.items()}
    data, table = save_npz(tmp_path / "toy.npz", wrong_arrays(toy_arrays()) | ids), tmp_path / "texts.csv"
    lines = [f'train-{i},"<b>text {i}</b>, it says",x' for i in range(SIZES["train"])]
    table.write_text("\n".join(["id,text,note", *lines]) + "\n", "utf-8")
    flags = ["--data-path", str(data), "--html", str(tmp_path / "a.html")]
    assert main([*flags, "--texts", str(table)]) == 0
    page = page_of(tmp_path / "a.html")
    assert f"--html {tmp_path / 'a.html'} --texts {table}" in page.text
    (cleaning,) = re.findall(r"python -m mrl_jax\.audit ([^#]+ clean\.npz) # filter", page.text)
    assert main(shlex.split(cleaning.replace("clean.npz", str(tmp_path / "clean.npz")))) == 0
    assert "b" not in page.tags
    for row in suspects_of(page):
        number = re.search(r"<small>row (\d+) · train-\1</small>", row)[1]
        assert f"&lt;b&gt;text {number}&lt;/b&gt;, it says" in row
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "other.png").write_bytes(b"")
    table.write_text("id,text\nother,a text\n", "utf-8")
    capsys.readouterr()
    for flag, path in (("--texts", table), ("--pictures", tmp_path / "pictures")):
        assert main([*flags, flag, str(path)]) == 2
        message = capsys.readouterr().err
        assert f"{flag[2:]} {path}: none belongs to the data, whose ids are such as 'train-0'" in message
    nameless = load_dataset(toy_arrays())
    assert Samples(nameless, texts={"test:3": "a text"}).of("touch", "test", 3).caption == "a text"
    with pytest.raises(InputError, match="texts: none belongs to the data, whose ids are such as 'train:0'"):
        Samples(nameless, texts={"0": "a"})


def test_a_missing_package_and_a_missing_folder_are_refused_before_anything_is_written(
    audited, tmp_path, monkeypatch, capsys
):
    with pytest.raises(InputError, match="the folder does not exist"):
        write_audit_page(audited, tmp_path / "a.html", pictures=tmp_path / "none")
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    data = save_npz(tmp_path / "toy.npz")
    assert main(["--data-path", str(data), "--html", str(tmp_path / "a.html")]) == 2
    assert "run: pip install jinja2 vl-convert-python" in capsys.readouterr().err
    for flag in ("--pictures", "--texts"):
        assert main(["--data-path", str(data), flag, str(tmp_path)]) == 2
        assert f"{flag} belongs to --html FILE" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
