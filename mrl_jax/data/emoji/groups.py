"""Groups of near-duplicate emoji, and a split that keeps each group together.

Many emoji are variations of one drawing: the same runner as a man, a woman, facing right; 24 clock faces; one heart
in 12 colors. A split by row would put a near-copy of almost every test picture into training. So rows are first joined
into groups, by code points, names and pixels, and whole groups are assigned to splits. No random numbers are used:
groups are ordered by the SHA-256 of their key and of a seed, so that a split is the same on every machine.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

__all__ = ["NEAR_DISTANCE", "SPLIT_TENTHS", "assign_splits", "group_keys", "picture_distances"]

_QUARTER_TURNS = (0, 1, 2, 3)

SPLIT_TENTHS: Mapping[str, int] = {"train": 7, "valid": 1, "test": 2}
"""Fraction of each split in tenths."""

NEAR_DISTANCE = 0.10
"""Pictures closer than this (see `picture_distances`) are near-duplicates.

Below 0.10 the joined pairs are the same drawing with another mouth, hand, color or sign. From 0.11 on, different things
are joined through their common frame: family silhouettes, keycaps and arrows (all signs on a square) would become one
group of 39 across three classes.
"""

# Code points that mark a variation of a drawing: ZERO WIDTH JOINER, VARIATION SELECTOR-16, female, male, rightwards
# arrow ("facing right").
_VARIATION = {"200d", "fe0f", "2640", "2642", "27a1"}
_PERSONS = {
    **dict.fromkeys(("1f468", "1f469", "1f9d1"), "adult"),
    **dict.fromkeys(("1f466", "1f467", "1f9d2"), "child"),
    **dict.fromkeys(("1f474", "1f475", "1f9d3"), "elder"),
}
# Gender variants whose code points have nothing in common.
_SAME_CODES = (
    ("1f934", "1f478"),  # prince, princess
    ("1f930", "1fac3", "1fac4"),  # pregnant woman, man, person
    ("1f931", "adult-1f37c"),  # feeding a baby
    ("1f385", "1f936", "adult-1f384"),  # father, mother, Mx Christmas
    ("1f483", "1f57a"),  # dancers
    ("1f46b", "1f46c", "1f46d", "adult-1f91d-adult"),  # holding hands
    ("1f6b9", "1f6ba"),  # men's, women's symbol
)

# Words that distinguish versions of one drawing: direction, color, size, state, rank.
_DIRECTION_WORDS = (
    "LEFT RIGHT UP DOWN LEFTWARDS RIGHTWARDS UPWARDS DOWNWARDS NORTH SOUTH EAST WEST CLOCKWISE ANTICLOCKWISE"
)
_COLOR_WORDS = "RED ORANGE YELLOW GREEN BLUE LIGHT PURPLE BROWN PINK GREY BLACK WHITE"
_OTHER_WORDS = "LARGE MEDIUM SMALL HEAVY DOUBLE OPEN CLOSED RAISED LOWERED LOW HIGH FIRST SECOND THIRD"
_VERSION_WORDS = frozenset(f"{_DIRECTION_WORDS} {_COLOR_WORDS} {_OTHER_WORDS}".split())
# Series drawn from one template: all rows whose "subgroup: name" matches form one group.
_TEMPLATES = (
    r"^family: KISS",
    r"^family: COUPLE WITH HEART",
    r"^(family|person-symbol): FAMILY",
    r"^time: CLOCK FACE",
    r"^sky & weather: .*MOON",
    r"^place-map: EARTH GLOBE",
    r"^keycap: ",
    r"^money: BANKNOTE",
    r"^alphanum: INPUT SYMBOL",
    r"^book-paper: (CLOSED|GREEN|BLUE|ORANGE) BOOK",
    r"^geometric: .*CIRCLE",
    r"^geometric: .*SQUARE",
    r"^av-symbol: .*(TRIANGLE|TRACK BUTTON|PLAY OR PAUSE)",
    r"^arrow: (UP|DOWN|LEFT|RIGHT|NORTH|SOUTH|BLACK)[A-Z ]* ARROW$",
    r"^arrow: .*ARROW ABOVE",
    r"^sound: SPEAKER",
)


def group_keys(
    rows: Sequence[Mapping[str, str]], pictures: np.ndarray, turns: Sequence[int] = _QUARTER_TURNS
) -> list[str]:
    """Join near-duplicates; rows of one group get the same key.

    Args:
        rows: N mappings with `id` (code points: lower-case hexadecimal joined by "-"), `name` (the Unicode name,
            upper case) and `subgroup`.
        pictures: uint8 [N, 72, 72, 4], RGBA.
        turns: as of `picture_distances`.

    Returns:
        N keys: the smallest id of the row's group.
    """
    parents = list(range(len(rows)))

    def find(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    buckets: dict[str, int] = {}
    for i, row in enumerate(rows):
        for key in _shared_keys(row):
            parents[find(i)] = find(buckets.setdefault(key, i))
    near = np.triu(picture_distances(pictures, turns) < NEAR_DISTANCE, k=1)
    for i, j in zip(*np.nonzero(near), strict=True):
        parents[find(int(i))] = find(int(j))

    smallest: dict[int, str] = {}
    for i, row in enumerate(rows):
        smallest[find(i)] = min(row["id"], smallest.get(find(i), row["id"]))
    return [smallest[find(i)] for i in range(len(rows))]


def picture_distances(pictures: np.ndarray, turns: Sequence[int] = _QUARTER_TURNS) -> np.ndarray:
    """Root mean square difference of every two pictures, the smallest over the symmetries of the square.

    Pictures are premultiplied by their alpha (so that a white shape differs from a hole) and averaged over 3x3 pixels
    (so that smooth edges do not count). All sums are of integers below 2^53 and so exact in any order of summation.

    Args:
        pictures: uint8 [N, 72, 72, 4], RGBA.
        turns: by how many quarters one picture of a pair may be turned, some of 0, 1, 2, 3, with 4 - k for every k > 0.
            After each turn it may be mirrored as well: all four give the 8 symmetries, 0 alone gives 2.

    Returns:
        float64 [N, N], 0 (equal) to 1 (black against transparent white).
    """
    n, height, width, _ = pictures.shape
    alpha = pictures[..., 3:].astype(np.uint32)
    premultiplied = np.concatenate([pictures[..., :3] * alpha, alpha * 255], axis=-1)
    columns = premultiplied.reshape(n, height // 3, 3, width, 4).sum(axis=2)
    small = columns.reshape(n, height // 3, width // 3, 3, 4).sum(axis=3).astype(np.float64)
    even, odd = _mirror_parts(small)
    squares = (small * small).reshape(n, -1).sum(axis=1)
    products = np.zeros((n, n))  # the largest over the symmetries; none is negative
    for k in turns:
        turned_even, turned_odd = _mirror_parts(np.rot90(small, k, axes=(1, 2)))
        np.maximum(products, (even @ turned_even.T + np.abs(odd @ turned_odd.T)) / 2, out=products)
    values, largest = small[0].size, 9 * 255 * 255
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0) / values) / largest


def _mirror_parts(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of pictures [N, H, W, C] that mirroring keeps and the part that it negates, each [N, H * W / 2 * C].

    The sum of their products is twice that of two pictures, and the difference twice that with one of them mirrored.
    """
    n, half = len(pictures), pictures.shape[2] // 2
    left, right = pictures[:, :, :half].reshape(n, -1), pictures[:, :, : half - 1 : -1].reshape(n, -1)
    return left + right, left - right


def assign_splits(keys: Sequence[str], labels: Sequence[int], seed: int = 0) -> list[str]:
    """Assign whole groups to train, valid and test, 7 : 1 : 2 in every class.

    Groups are taken in the order of the SHA-256 of their key, and of the seed if it is not 0. Of the splits with room
    for a group, it goes to the one that is emptiest relative to its quota of the main class of the group. A group that
    would fill over a quarter of a quota can only go to train: a test class that is mostly clock faces would measure
    little else.

    Args:
        keys: N group keys.
        labels: N class numbers.
        seed: which of the possible splits.

    Returns:
        N split names.
    """

    def place(key: str) -> str:
        return hashlib.sha256((f"{key} {seed}" if seed else key).encode()).hexdigest()

    totals = Counter(labels)
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        members[key][label] += 1
    quotas = {(s, c): Fraction(tenths * totals[c], 10) for s, tenths in SPLIT_TENTHS.items() for c in totals}
    filled: Counter[tuple[str, int]] = Counter()
    chosen = {}
    for key in sorted(members, key=place):
        counts = members[key]
        main = max(sorted(counts), key=lambda c: counts[c])
        free = {s: 1 - filled[s, main] / quotas[s, main] for s in SPLIT_TENTHS}
        candidates = [
            s
            for s in SPLIT_TENTHS
            if all(filled[s, c] + n <= quotas[s, c] for c, n in counts.items())
            and (s == "train" or counts.total() == 1 or all(4 * n <= quotas[s, c] for c, n in counts.items()))
        ]
        chosen[key] = max(candidates or ["train"], key=lambda s: free[s])
        for c, n in counts.items():
            filled[chosen[key], c] += n
    return [chosen[key] for key in keys]


def _shared_keys(row: Mapping[str, str]) -> list[str]:
    """Keys that a row has in common with its near-duplicates: by code points, by name, by template."""
    codes = "-".join(_PERSONS.get(code, code) for code in row["id"].split("-") if code not in _VARIATION)
    keys = [f"codes {codes or row['id']}"]
    keys += [f"same {group[0]}" for group in _SAME_CODES if codes in group]
    words = [w for w in re.findall(r"\w+", row["name"].upper()) if w not in _VERSION_WORDS]
    if words and row["subgroup"] != "country-flag":  # North and South Korea are not one flag in two directions
        keys.append(f"name {' '.join(words)}")
    keys += [f"template {p}" for p in _TEMPLATES if re.search(p, f"{row['subgroup']}: {row['name']}")]
    return keys
