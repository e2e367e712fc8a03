"""Words in the keys of other people's files, and what they probably mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats import header_of
from mrl_jax.data.own_layout import SPLIT_WORDS
from mrl_jax.data.values import plain_array
from mrl_jax.errors import InputError

__all__ = ["LABEL_WORDS", "SPLIT_OF", "VIEW_WORDS", "keys_hint", "name_of", "refuse_other_ends"]

SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
"""Word for a split, in lower case -> the split."""
_NAMES = {
    "image": ("i", "img", "imgs", "image", "images"),
    "text": ("t", "txt", "txts", "text", "texts"),
    "labels": ("l", "lab", "label", "labels", "y", "gt", "gnd"),
}
VIEW_WORDS = ("X", "x", "fea", "feas", "feature", "features", "data", "view", "views", "v", "V")
"""Names of cell arrays, or of numbered arrays, that hold a modality each."""
LABEL_WORDS = (
    *("labels", "label", "gt", "gnd", "truth", "truelabel", "truelabels", "true_label", "true_labels"),
    *("target", "targets", "L", "Y", "y"),  # the last two may also be a modality beside labels of another name
)
"""Names of labels of data without splits."""
_OTHER_ENDS = dict.fromkeys(("label", "lab", "lbl", "target", "targets", "category", "class", "y", "gt"), "labels")
_OTHER_ENDS |= {"id": "ids", "masks": "mask"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NO_NAMES = ("all", "full", "feat", "feats", "features", "cnn", "bow", "database", "retrieval", "db", "mask", "ids")


def name_of(stem: str) -> str:
    """Name of a modality, or "labels", for the stem of a key."""
    return next((name for name, words in _NAMES.items() if stem.lower() in words), stem)


def keys_hint(keys: Iterable[str]) -> str:
    """How the user can name these arrays, for messages: with their keys, where their names say enough."""
    guessed: dict[str, dict[str, str]] = {}  # name -> split, empty for all -> key
    for key in keys:
        words = _WORD.findall(key)
        split = next((s for w in words if (s := _split_of(w))), "")
        names = [w for w in words if not _split_of(w) and w.lower() not in _NO_NAMES]
        if len(names) == 1 and len(words) <= 3:
            guessed.setdefault(name_of(names[0]), {}).setdefault(split, key)
    for splits in (("train", "valid", "test"), ("train", "test"), ("",)):
        entries = {name: [found[s] for s in splits] for name, found in guessed.items() if {*splits} <= {*found}}
        if "labels" in entries and len(entries) > 2:
            entries["labels"] = entries.pop("labels")  # last
            named = " ".join(f"{name}={','.join(parts)}" for name, parts in entries.items())
            return f"name the arrays with keys, such as --keys {named}"
    return (
        "name the arrays with keys: --keys image=KEY text=KEY labels=KEY, where KEY is one array, or those of train "
        "and test, or of train, validation and test, separated by commas"
    )


def refuse_other_ends(
    arrays: Mapping[str, Any], names: Mapping[str, str], modalities: Sequence[str], source: str
) -> None:
    """Refuse vectors that would be modalities, but whose last word is one that others use for labels, ids or masks.

    They are modalities of one column if the user names them, or if the array that is meant is there.

    Args:
        arrays: the arrays by their keys in the file.
        names: key of the own layout -> key in the file.
        modalities: those that are used; empty for all.
        source: where the arrays come from, for the message.

    Raises:
        InputError: there is one, such as `train_label`.
    """
    for own, key in names.items():
        split, _, rest = own.partition("_")
        owner, _, end = rest.rpartition("_")
        if split not in SPLITS or end.lower() not in _OTHER_ENDS:
            continue
        has_labels = any(name.startswith(f"{split}_") and name.endswith("_labels") for name in names)
        meant = _OTHER_ENDS[end.lower()]
        owner = {"ids": "", "mask": owner or "MODALITY"}.get(meant, owner)
        right = "_".join(filter(None, (split, owner, meant)))
        if right in names or (modalities and (rest in modalities or has_labels)):
            continue
        try:
            shape = (header_of(arrays, key) or plain_array(arrays[key], key)).shape
        except InputError:  # reported where it is used
            continue
        if len(shape) == 1 or (len(shape) == 2 and 1 in shape):
            raise InputError(f"{source}: {key} has shape {list(shape)}, and is no modality; rename it to {right}")


def _split_of(word: str) -> str | None:
    return "test" if word.lower() in ("query", "q", "queries") else SPLIT_OF.get(word.lower())
