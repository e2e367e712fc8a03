"""Catalog of the published feature sets: what each should hold, its file layouts, and where it is published.

No library for data files is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.errors import InputError

__all__ = ["CATALOG", "EMOJI", "HUB_REPOSITORY", "FeatureSet", "KnownFile", "check_name", "deviations"]

HUB_REPOSITORY = "xinxin713/hashing-benchmark-datasets"
"""Repository on the Hugging Face hub with four of the sets and a SHA256SUMS file."""


@dataclass(frozen=True)
class KnownFile:
    """A file in which a set circulates.

    Attributes:
        names: file names; alternatives are separated by " or ", files of one folder are joined by " + ".
        keys: names of its arrays, as shown to users.
        note: remark for users.
    """

    names: str
    keys: str
    note: str = ""


@dataclass(frozen=True)
class FeatureSet:
    """Published facts of a set.

    Attributes:
        title: its name in publications.
        classes: K.
        sizes: instances per split, as published.
        dims: features D per modality, where published.
        features: description of the features.
        files: the known files and their layouts, the preferred one first.
        published: where to get them.
        hub_file: the archive of the set in `HUB_REPOSITORY`, or None.
        class_names: in the order of the labels; empty where no source gives the order.
        valid_by_class: if a file has no validation split, whether it is the first test rows of each class; otherwise it
            is the first test rows, as the paper's official implementation takes them.
        in_paper: whether Hu et al. (2021) report results on it; sizes and preset are then those of the paper.
    """

    title: str
    classes: int
    sizes: Mapping[str, int]
    dims: Mapping[str, int]
    features: str
    files: tuple[KnownFile, ...]
    published: str
    hub_file: str | None = None
    class_names: tuple[str, ...] = ()
    valid_by_class: bool = False
    in_paper: bool = True


def _sizes(train: int, valid: int, test: int) -> dict[str, int]:
    return {"train": train, "valid": valid, "test": test}


_ON_HUB = f"https://huggingface.co/datasets/{HUB_REPOSITORY}"
_DEEP_KEYS = "{train,valid,test}_imgs_deep, _texts or _text, _imgs_labels, _texts_labels"
_SHORT_KEYS = "{tr,val,te}_{img,txt,img_lab,txt_lab}"
_NAMED_KEYS = "{img,text,label}_{train,valid,test}"

CATALOG: dict[str, FeatureSet] = {
    "wikipedia": FeatureSet(
        title="Wikipedia",
        classes=10,
        sizes=_sizes(2173, 231, 462),
        dims={"image": 4096, "text": 300},
        features="image: VGG19 fc7, 4096-d; text: Doc2Vec, 300-d",
        files=(
            KnownFile(
                "wiki_deep_doc2vec_data_corr_ae.h5py",
                "{train,test}_imgs_deep, _texts or _text, _imgs_labels, _texts_labels",
                "file of the paper; valid: first 231 of test",
            ),
            KnownFile(
                "wiki.mat",
                "{train,test}_imgs_deep, _texts_doc, _imgs_labels",
                "file of later publications; valid: first 231 of test",
            ),
            KnownFile(
                "raw_features.mat + {train,test}set_txt_img_cat.list (+ categories.list)",
                "{I,T}_{tr,te}",
                "release of 2010, 128-d SIFT and 10-d LDA; valid: first 231 of test",
            ),
        ),
        published=f"{_ON_HUB} (data/wiki.zip)",
        hub_file="data/wiki.zip",
        class_names=(
            "art",
            "biology",
            "geography",
            "history",
            "literature",
            "media",
            "music",
            "royalty",
            "sport",
            "warfare",
        ),
    ),
    "inria-websearch": FeatureSet(
        title="INRIA-Websearch",
        classes=100,
        sizes=_sizes(9000, 1332, 4366),
        dims={"image": 4096, "text": 1000},
        features="image: AlexNet fc7, 4096-d; text: LDA, 1000-d",
        files=(KnownFile("INRIA-Websearch.mat", f"{_SHORT_KEYS}, or {_NAMED_KEYS}"),),
        published=f"{_ON_HUB} (data/inria-websearch.zip)",
        hub_file="data/inria-websearch.zip",
    ),
    "nus-wide": FeatureSet(
        title="NUS-WIDE, 10 classes",
        classes=10,
        sizes=_sizes(42941, 5000, 23661),
        dims={"image": 4096, "text": 300},
        features="image: VGG19 fc7, 4096-d; text: Doc2Vec, 300-d",
        files=(KnownFile("nus_wide_deep_doc2vec_data_42941.h5py or nus_wide_deep_doc2vec-corr-ae.h5py", _DEEP_KEYS),),
        published="never published; ask the authors of the paper",
    ),
    "xmedianet": FeatureSet(
        title="XMediaNet",
        classes=200,
        sizes=_sizes(32000, 4000, 4000),
        dims={"image": 4096, "text": 300},
        features="image: VGG19 fc7, 4096-d; text: Doc2Vec, 300-d; the five-view file adds audio, 3-d models and video",
        files=(
            KnownFile("xmedianet_deep_doc2vec_data.h5py", _DEEP_KEYS, "valid, if absent: first 4,000 of test"),
            KnownFile(
                "XMediaNet5View_Doc2Vec.mat or XMediaNet4View_pairs.mat",
                f"cell arrays {{train,valid,test}} and {{train,valid,test}}_labels, or {_NAMED_KEYS}",
                "cell v is modality v: image, text, audio, 3d, video",
            ),
        ),
        published=f"{_ON_HUB} (data/xmedianet.zip)",
        hub_file="data/xmedianet.zip",
    ),
    "xmedia": FeatureSet(
        title="XMedia",
        classes=20,
        sizes=_sizes(4000, 500, 500),
        dims={"image": 4096, "text": 3000},
        features="image: CNN, 4096-d; text: bag of words, 3000-d",
        files=(
            KnownFile(
                "XMediaFeatures.mat",
                "I_{tr,te}_CNN, T_{tr,te}_BOW, {tr,te}ImgCat, {tr,te}TxtCat",
                "valid: 500 of test, of each class its first rows; audio, 3-d models and video in the file have no "
                "pairs and are left out",
            ),
        ),
        published=f"{_ON_HUB} (data/xmedia.zip)",
        hub_file="data/xmedia.zip",
        valid_by_class=True,
        in_paper=False,
    ),
    "pascal-sentence": FeatureSet(
        title="Pascal Sentence",
        classes=20,
        sizes=_sizes(800, 100, 100),
        dims={"image": 4096},
        features="image: CNN, 4096-d; text: depends on the publication",
        files=(
            KnownFile(
                "{train,test}_{img,txt,img_lab,txt_lab}.mat",
                "one array each",
                "a folder of eight files; valid: of each class the first half of its test rows, 100 at most",
            ),
        ),
        published="with the code of DSCMR (Zhen et al., CVPR 2019) and of later methods",
        valid_by_class=True,
        in_paper=False,
    ),
}
"""Name of a set, which is also the name of its preset -> its published facts."""

EMOJI = FeatureSet(
    title="Emoji",
    classes=9,
    sizes=_sizes(1338, 185, 375),
    dims={"image": 784, "text": 512},
    features="image: picture, 784-d; text and text_LANGUAGE: counts of name parts, 512-d",
    files=(),
    published="comes with the package; the first use computes the features",
    in_paper=False,
)
"""The embedded set, which needs no file."""


def check_name(name: str) -> None:
    """Check that a set is in the catalog.

    Raises:
        InputError: it is not.
    """
    if name not in CATALOG:
        raise InputError(f"unknown data set {name!r}; choose from: {', '.join(CATALOG)}")


def deviations(facts: FeatureSet, data: Dataset) -> list[str]:
    """The differences between a data set and its published facts, one line each.

    Args:
        facts: the published facts.
        data: the loaded data.
    """
    lines = []
    if data.num_classes != facts.classes:
        lines.append(f"{data.num_classes} classes; {facts.title} has {facts.classes}")
    sizes = {s: len(data.splits[s]) for s in SPLITS}
    if sizes != dict(facts.sizes):
        given, published = (" / ".join(f"{by_split[s]:,}" for s in SPLITS) for by_split in (sizes, facts.sizes))
        lines.append(f"{given} instances (train / valid / test); {facts.title} has {published}")
    for m, d in data.dims.items():
        if facts.dims.get(m, d) != d:
            lines.append(f"{d} {m} features; {facts.title} has {facts.dims[m]}")
    return lines
