"""Near-duplicates among emoji, and the split that keeps them together.

Many emoji are variations on one drawing: the same runner as a man, a woman, facing right; 24 clock faces; one heart
in 12 colors. A split by row would put a copy of nearly every test picture into training. So rows are first joined
into groups, by code points, by names and by pixels, and the split deals out whole groups. Nothing here draws random
numbers: groups are ordered by the SHA-256 of their key, so that the split is the same on every machine, for ever.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

__all__ = ["NEAR_DISTANCE", "SPLIT_SHARES", "assign_splits", "group_keys", "picture_distances"]

SPLIT_SHARES: Mapping[str, int] = {"train": 7, "valid": 1, "test": 2}  # tenths

# Pictures closer than this (see picture_distances) are near-duplicates. Below 0.10 the joined pairs are the same
# drawing with another mouth, hand, color or sign. From 0.11 on, unlike things chain together through their common
# frame: family silhouettes, keycaps and arrows (all signs on a square) would become one group of 39 across three
# classes.
NEAR_DISTANCE = 0.10

# Code points that only vary a drawing: ZERO WIDTH JOINER, VARIATION SELECTOR-16, female, male, rightwards arrow
# ("facing right").
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

# Words that tell apart versions of one drawing: direction, color, size, state, rank.
_DIRECTION_WORDS = (
    "LEFT RIGHT UP DOWN LEFTWARDS RIGHTWARDS UPWARDS DOWNWARDS NORTH SOUTH EAST WEST CLOCKWISE ANTICLOCKWISE"
)
_COLOR_WORDS = "RED ORANGE YELLOW GREEN BLUE LIGHT PURPLE BROWN PINK GREY BLACK WHITE"
_OTHER_WORDS = "LARGE MEDIUM SMALL HEAVY DOUBLE OPEN CLOSED RAISED LOWERED LOW HIGH FIRST SECOND THIRD"
_VERSION_WORDS = frozenset(f"{_DIRECTION_WORDS} {_COLOR_WORDS} {_OTHER_WORDS}".split())
# Series drawn after one template: everything whose "subgroup: name" matches is one group.
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


def group_keys(rows: Sequence[Mapping[str, str]], pictures: np.ndarray) -> list[str]:
    """Join near-duplicates; rows of one group get the same key.

    Args:
        rows: N mappings with `id` (code points: lower-case hexadecimal joined by "-"), `name` (the Unicode name,
            upper case) and `subgroup`.
        pictures: uint8 [N, 72, 72, 4], RGBA.

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
    near = np.triu(picture_distances(pictures) < NEAR_DISTANCE, k=1)
    for i, j in zip(*np.nonzero(near), strict=True):
        parents[find(int(i))] = find(int(j))

    smallest: dict[int, str] = {}
    for i, row in enumerate(rows):
        smallest[find(i)] = min(row["id"], smallest.get(find(i), row["id"]))
    return [smallest[find(i)] for i in range(len(rows))]


def picture_distances(pictures: np.ndarray) -> np.ndarray:
    """Measure the root mean square difference between pictures, as they are or one mirrored, whichever is smaller.

    Pictures are premultiplied by their alpha (so that a white shape differs from a hole) and averaged over 3x3 pixels
    (so that smooth edges do not count). All sums are of integers below 2^53, hence exact whatever the order of
    summation.

    Args:
        pictures: uint8 [N, 72, 72, 4], RGBA.

    Returns:
        float64 [N, N], 0 (equal) to 1 (black against transparent white).
    """
    n, height, width, _ = pictures.shape
    alpha = pictures[..., 3:].astype(np.uint32)
    premultiplied = np.concatenate([pictures[..., :3] * alpha, alpha * 255], axis=-1)
    columns = premultiplied.reshape(n, height // 3, 3, width, 4).sum(axis=2)
    small = columns.reshape(n, height // 3, width // 3, 3, 4).sum(axis=3).astype(np.float64)
    # Mirroring keeps the even part of a picture and negates the odd one: two half-size products serve both cases.
    left, right = small[:, :, : width // 6].reshape(n, -1), small[:, :, : width // 6 - 1 : -1].reshape(n, -1)
    even, odd = left + right, left - right
    squares = (left * left + right * right).sum(axis=1)
    products = (even @ even.T + np.abs(odd @ odd.T)) / 2
    values, largest = small[0].size, 9 * 255 * 255
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0) / values) / largest


def assign_splits(keys: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Deal whole groups out to train, valid and test, 7 : 1 : 2 in every class.

    Groups come in the order of the SHA-256 of their key; each goes to the split that lacks most, relative to its
    quota, of the group's classes, among those with room for it. Only train takes a group that would fill over a
    quarter of a quota: a test class that is mostly clock faces would measure little else.

    Args:
        keys: N group keys.
        labels: N class numbers.

    Returns:
        N split names.
    """
    totals = Counter(labels)
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        members[key][label] += 1
    quotas = {(s, c): Fraction(share * totals[c], 10) for s, share in SPLIT_SHARES.items() for c in totals}
    filled: Counter[tuple[str, int]] = Counter()
    chosen = {}
    for key in sorted(members, key=lambda k: hashlib.sha256(k.encode()).hexdigest()):
        counts = members[key]
        main = max(sorted(counts), key=lambda c: counts[c])
        lack = {s: 1 - filled[s, main] / quotas[s, main] for s in SPLIT_SHARES}
        rooms = [
            s
            for s in SPLIT_SHARES
            if all(filled[s, c] + n <= quotas[s, c] for c, n in counts.items())
            and (s == "train" or counts.total() == 1 or all(4 * n <= quotas[s, c] for c, n in counts.items()))
        ]
        chosen[key] = max(rooms or ["train"], key=lambda s: lack[s])
        for c, n in counts.items():
            filled[chosen[key], c] += n
    return [chosen[key] for key in keys]


def _shared_keys(row: Mapping[str, str]) -> list[str]:
    """Return the keys that near-duplicates of this row have too: by code points, by name, by template."""
    codes = "-".join(_PERSONS.get(code, code) for code in row["id"].split("-") if code not in _VARIATION)
    keys = [f"codes {codes or row['id']}"]
    keys += [f"same {group[0]}" for group in _SAME_CODES if codes in group]
    words = [w for w in re.findall(r"\w+", row["name"].upper()) if w not in _VERSION_WORDS]
    if words and row["subgroup"] != "country-flag":  # North and South Korea are not one flag in two directions
        keys.append(f"name {' '.join(words)}")
    keys += [f"template {p}" for p in _TEMPLATES if re.search(p, f"{row['subgroup']}: {row['name']}")]
    return keys
