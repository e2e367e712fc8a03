"""Which columns of a table are modalities, labels, ids and the split: by their names, or as the user says."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mrl_jax.data.formats.errors import RefusedError
from mrl_jax.data.formats.numbered import gaps, numbered, ranges, stem_of
from mrl_jax.errors import listed

__all__ = [
    "EMPTY",
    "LISTS",
    "NUMBER",
    "OTHER",
    "SPLIT_NUMBERS",
    "TEXT",
    "NoNumbersError",
    "Roles",
    "check_modalities",
    "is_labels",
    "is_modality",
    "is_shown",
    "is_text",
    "kind_of",
    "lacking",
    "roles_of",
    "value_type",
]

NUMBER = "numbers"
"""Kind of a column of numbers or truth values."""
TEXT = "text"
"""Kind of a column of texts. Dictionaries (categories) are of the kind of their values."""
LISTS = "lists of numbers"
"""Kind of a column whose cells are lists of numbers."""
EMPTY = "nothing"
"""Kind of a column without any value."""
OTHER = "other values"
"""Kind of any other column."""
SPLIT_NUMBERS = {"train": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
"""Word for a split in a table, or in the name of a file -> index in `SPLITS`."""
_PLAIN = {"label": "labels", "labels": "labels", "id": "ids", "ids": "ids", "split": "split"}
_REMEDY = (
    "give each modality one column of lists, or numbered columns such as image_0, image_1, …, or say which columns "
    "with keys, such as --keys image=COLUMN,COLUMN text=PREFIX (features={…} of Dataset.from_frame)"
)


class NoNumbersError(RefusedError):
    """Features are in a column that holds something else.

    Args:
        column: the column.
        problem: what it holds, and the rule.
    """

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r} {problem}")
        self.column, self.problem = column, problem


class Roles(NamedTuple):
    """What the columns of a table are.

    Attributes:
        features: modality -> its columns: one column of lists of numbers, or columns of numbers.
        plain: "labels", "ids", "MODALITY_labels" or "MODALITY_shown" -> its column; several columns are those of
            one-hot labels.
        split: the column with the split of each row, or None.
        unused: other columns of numbers, which may be a part of the data.
        texts: other columns of texts.
        gaps: stem -> what is missing, for columns that would be a modality if their numbers had no gap.
    """

    features: dict[str, tuple[str, ...]]
    plain: dict[str, tuple[str, ...]]
    split: str | None
    unused: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    gaps: tuple[tuple[str, str], ...] = ()

    def unused_note(self, without: Sequence[str] = ()) -> str:
        """A warning of the columns of numbers that are not used, but for those `without`; empty if there are none."""
        columns = [name for name in self.unused if name not in without]
        note = f"columns of numbers that are not used: {listed(columns, 6)}; modalities are {', '.join(self.features)}"
        return f"{note}{self.gaps_note()}" if columns else ""

    def gaps_note(self) -> str:
        """What is missing in numbered columns, and the remedy, to follow another sentence; empty if nothing is."""
        if not self.gaps:
            return ""
        found = [f"{m}={columns[0] if len(columns) == 1 else m}" for m, columns in self.features.items()]
        named = " ".join([*found, *(f"{stem}={stem}" for stem, _ in self.gaps)])
        return (
            f"; {'; '.join(text for _, text in self.gaps[:3])}; number the columns of a modality from 0 or 1 "
            f"without a gap, or name them as they are: --keys {named[:200]} (features={{…}} of Dataset.from_frame)"
        )


def kind_of(kind: Any) -> str:
    """The kind of a column of an Arrow type."""
    import pyarrow.types as pt

    if pt.is_null(kind):
        return EMPTY
    if is_text(kind):
        return TEXT
    if pt.is_dictionary(kind):
        return kind_of(kind.value_type)
    if _is_number(kind):
        return NUMBER
    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return LISTS if is_list and _is_number(kind.value_type) else OTHER


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text, or a dictionary of texts."""
    import pyarrow.types as pt

    plain = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    return plain or (pt.is_dictionary(kind) and is_text(kind.value_type))


def value_type(kind: Any) -> Any:
    """The type of the numbers in lists; any other type as it is."""
    return kind.value_type if kind_of(kind) == LISTS else kind


def _is_number(kind: Any) -> bool:
    import pyarrow.types as pt

    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_decimal(kind)


def roles_of(kinds: Mapping[str, str], named: Mapping[str, Sequence[str]] | None = None) -> Roles:
    """What the columns of a table are.

    By their names, a column of lists of numbers is a modality, and so are columns of numbers that are numbered without
    a gap from 0 or 1 (`image_0`, `image_1`, …). `label` (or `labels`), `MODALITY_label`, `MODALITY_shown`, `id` and
    `split` are what they are called.

    Args:
        kinds: column -> its kind, in the order of the table.
        named: modality, `labels`, `MODALITY_labels`, `MODALITY_shown`, `ids` or `split` -> columns; a word that is no
            column is the beginning of the names of its columns. If it names modalities, there are no others; the rest
            that it does not name goes by its name.

    Raises:
        RefusedError: a column does not exist, holds another kind of values than its role needs, or two columns have
            one role.
    """
    given = {_role(name): _columns(_role(name), parts, kinds) for name, parts in (named or {}).items()}
    plain = {role: columns for role, columns in given.items() if _is_plain(role)}
    features = {role: _features(role, columns, kinds) for role, columns in given.items() if not _is_plain(role)}
    split = plain.pop("split", (None,))[0]
    free = _without(kinds, (*_every(plain), split))
    by_name = not features
    if by_name:
        features = _modalities(free)
    for role, columns in plain.items():
        owner = _owner(role)
        if role not in ("labels", "ids") and owner not in features:
            raise RefusedError(f"{role}: there is no modality {owner!r}; there are {', '.join(features)}")
        if is_labels(role) and len(columns) > 1 and any(kinds[c] != NUMBER for c in columns):
            raise RefusedError(f"{role}: several columns are those of one-hot labels, and must be numbers; name one")
    free = _without(free, _every(features))
    known, own_split = _plain_roles(free, [*features], strict=by_name)
    has_labels = any(is_labels(role) for role in plain)
    plain |= {role: c for role, c in known.items() if role not in plain and not (is_labels(role) and has_labels)}
    rest = _without(free, (*_every(plain), split or own_split))
    unused, texts = ([name for name, kind in rest.items() if kind == one] for one in (NUMBER, TEXT))
    return Roles(features, plain, split or own_split, tuple(unused), tuple(texts), tuple(gaps(unused).items()))


def check_modalities(roles: Roles) -> None:
    """Refuse a table with one modality.

    Raises:
        RefusedError: it has one.
    """
    if message := _lacks_modality(roles):
        raise RefusedError(message)


def lacking(roles: Roles) -> str:
    """What a table lacks to be a data set, and the remedy: a column in a row of numbered ones, or labels; or empty."""
    return (_lacks_modality(roles) if roles.gaps else "") or _lacks_labels(roles)


def _lacks_modality(roles: Roles) -> str:
    if len(roles.features) > 1:
        return ""
    found = f"only one modality is found, {next(iter(roles.features))}; two or more are needed"
    return (
        f"{found}{roles.gaps_note()}"
        if roles.gaps
        else (
            f"{found}: number the columns of each (image_0, image_1, …), or say which they are with features (--keys)"
        )
    )


def _lacks_labels(roles: Roles) -> str:
    if any(is_labels(role) for role in roles.plain):
        return ""
    broken = {stem for stem, _ in roles.gaps}
    others = [*roles.texts, *(name for name in roles.unused if stem_of(name) not in broken)]
    column = others[0] if len(others) == 1 else roles.texts[0] if len(roles.texts) == 1 else "COLUMN"
    plain = [*roles.plain.values(), *([(roles.split,)] if roles.split is not None else [])]
    columns = [ranges(of_one) for of_one in roles.features.values()] + [name for one in plain for name in one]
    return (
        f"no column of labels; it is called label (or labels, or MODALITY_label), and the columns are "
        f"{listed([*columns, *roles.texts, *roles.unused], 12)}: rename one, or name it with --keys labels={column} "
        f'(label="{column}" of Dataset.from_frame)'
    )


def _role(name: str) -> str:
    return _PLAIN.get(name, f"{name}s" if name.endswith("_label") else name)


def is_modality(name: str) -> bool:
    """Whether a name that the user gives columns is that of a modality."""
    return not _is_plain(_role(name))


def is_labels(name: str) -> bool:
    """Whether a name that the user gives columns is that of labels."""
    return _role(name) == "labels" or _role(name).endswith("_labels")


def is_shown(name: str) -> bool:
    """Whether a name that the user gives a column is that of what is shown of a modality."""
    return name.endswith("_shown")


def _is_plain(role: str) -> bool:
    return role in ("ids", "split") or is_labels(role) or is_shown(role)


def _owner(role: str) -> str:
    """The modality whose labels, or what is shown of it, a role is."""
    return role.removesuffix("_labels").removesuffix("_shown")


def _modalities(kinds: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Modality -> its columns, by their names and kinds, in the order of the table."""
    lists = [name for name, kind in kinds.items() if kind == LISTS and name not in _PLAIN]
    of_stem = {
        stem: columns
        for stem, columns in numbered([name for name, kind in kinds.items() if kind != LISTS]).items()
        if stem not in lists and any(kinds[column] == NUMBER for column in columns)
    }
    stem_by_name = {name: stem for stem, columns in of_stem.items() for name in columns}
    stems = dict.fromkeys(stem_by_name.get(name, name) for name in kinds if name in stem_by_name or name in lists)
    if not stems:
        broken = gaps([name for name, kind in kinds.items() if kind == NUMBER])
        raise RefusedError(
            "has no column of lists of numbers, and no numbered columns such as image_0, image_1, …, without a gap, "
            f"for features{''.join(f'; {text}' for text in list(broken.values())[:3])} "
            f"(columns: {listed(kinds, 10)}); {_REMEDY} (for pictures and texts run python -m mrl_jax.data featurize "
            "first)"
        )
    return {stem: _features(stem, of_stem.get(stem, (stem,)), kinds) for stem in stems}


def _plain_roles(
    kinds: Mapping[str, str], modalities: Sequence[str], strict: bool
) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Labels, ids and split by the names of columns; `strict` refuses labels and masks of no modality."""
    plain, split = dict[str, tuple[str, ...]](), None
    for name, kind in kinds.items():
        stem = name.removesuffix("s")
        owner = stem.removesuffix("_label")
        role = _PLAIN.get(name) or (f"{owner}_labels" if owner != stem and owner in modalities else None)
        if is_shown(name) and _owner(name) in modalities and kind in (TEXT, EMPTY):
            role = name
        if strict and owner != stem and role is None:
            raise RefusedError(
                f"column {name!r} belongs to no modality (modalities: {', '.join(modalities)}; they are columns of "
                "lists of numbers, or numbered columns); rename or drop it"
            )
        if strict and name.endswith("_mask"):
            raise RefusedError(
                f"column {name!r}: in a table, null in the column of a modality marks a missing sample; drop it"
            )
        if role == "split":
            split = name
        elif role is not None:
            if kind == LISTS:
                raise RefusedError(f"column {name!r} holds lists; give one value per row")
            if role in plain:
                raise RefusedError(f"two columns hold {role}; keep one")
            plain[role] = (name,)
    return plain, split


def _without(kinds: Mapping[str, str], columns: Iterable[str | None]) -> dict[str, str]:
    gone = set(columns)
    return {name: kind for name, kind in kinds.items() if name not in gone}


def _every(columns: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for of_one in columns.values() for name in of_one]


def _columns(role: str, parts: Sequence[str], kinds: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that the user names, each a column or the beginning of several."""
    found = list[str]()
    for part in parts:
        if part in kinds:
            found.append(part)
            continue
        stem = part.removesuffix("*")
        numbers = [name for name, kind in kinds.items() if kind in (NUMBER, EMPTY) and name.startswith(stem) and stem]
        order = {name: int(m[1]) for name in numbers if (m := re.fullmatch(r"[_.-]?(\d+)", name.removeprefix(stem)))}
        columns = sorted(order, key=order.__getitem__) or numbers
        if not columns or _is_plain(role):
            raise RefusedError(f"{role}: there is no column {part!r}; columns: {listed(kinds, 20)}")
        found += columns
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise RefusedError(f"{role}: column {twice!r} is named twice; name each once")
    if (role in ("ids", "split") or is_shown(role)) and len(found) != 1:
        raise RefusedError(f"{role}: {len(found)} columns are named; name one")
    if is_shown(role) and kinds[found[0]] not in (TEXT, EMPTY):
        raise RefusedError(
            f"column {found[0]!r} holds {kinds[found[0]]}; what is shown of a sample is a text, or the path of a "
            "picture file"
        )
    if _is_plain(role) and (bad := next((name for name in found if kinds[name] == LISTS), None)):
        raise RefusedError(f"column {bad!r} holds lists; give one value per row")
    return tuple(found)


def _features(modality: str, columns: tuple[str, ...], kinds: Mapping[str, str]) -> tuple[str, ...]:
    """Check that columns can be the features of a modality."""
    wanted = (LISTS,) if len(columns) == 1 and kinds[columns[0]] == LISTS else (NUMBER, EMPTY)
    if bad := next((name for name in columns if kinds[name] not in wanted), None):
        rule = "one column of lists, or columns of numbers" if kinds[bad] == LISTS else "numbers"
        raise NoNumbersError(bad, f"holds {kinds[bad]}, and {modality} needs {rule}; convert it or leave it out")
    return columns
