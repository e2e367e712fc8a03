"""How the user names and cuts the arrays of data: keys, percentages of splits, the share of the validation split.

Light: imports no library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.files import refuse_address
from mrl_jax.json_files import read_json

__all__ = ["KEY_RULE", "CutOptions", "is_split", "key_entries", "parse_keys", "parse_split", "split_text"]

KEY_RULE = (
    "give NAME=KEY (no splits yet), NAME=TRAIN,TEST or NAME=TRAIN,VALID,TEST, such as image=I_tr,I_te; of tables "
    "NAME=COLUMN,COLUMN or NAME=PREFIX"
)
"""What entries of keys are, for messages."""


@dataclass(frozen=True)
class CutOptions:
    """What the user says about the splits of data.

    Attributes:
        split: percentages of train, validation and test of data without splits, such as "60/15/25"; None for data that
            have splits.
        seed: seed of the cut; of data that are cut by nothing else (the embedded set), which of their splits.
        valid_share: fraction of the training split that becomes the validation split; None if there is one.
        as_needed: ignore what does not apply, instead of refusing it.
    """

    split: str | None = None
    seed: int = 0
    valid_share: float | None = None
    as_needed: bool = False

    def check(self, seed_alone: bool = False) -> None:
        """Check the values.

        Args:
            seed_alone: whether the data have several splits, so that a seed needs neither `split` nor `valid_share`.

        Raises:
            InputError: a value is wrong, `split` and `valid_share` are both given, or a seed without either.
        """
        if self.split is not None:
            parse_split(self.split)
            if self.valid_share is not None:
                raise InputError(f"split {self.split} gives the validation split, too; leave valid_share out")
        if self.valid_share is not None and not (isinstance(self.valid_share, Real) and 0 < self.valid_share < 1):
            raise InputError(
                f"valid_share {self.valid_share!r}: must be a number greater than 0 and less than 1, such as 0.1"
            )
        if not (isinstance(self.seed, Integral) and 0 <= self.seed < 2**32):
            raise InputError(f"split_seed {self.seed!r}: must be an integer in [0, {2**32 - 1}]")
        if self.seed and self.split is None and self.valid_share is None and not (seed_alone or self.as_needed):
            raise InputError(f"split_seed {self.seed} needs split or valid_share; give one of them, or leave it out")


def split_text(split: str | Sequence[float] | None) -> str | None:
    """The percentages of a split as text, `60/15/25` for example, from such text or three numbers.

    Raises:
        InputError: neither text nor three numbers.
    """
    if split is None or isinstance(split, str):
        return split
    given = split.tolist() if hasattr(split, "tolist") else split  # NumPy
    numbers = list(given) if isinstance(given, Sequence) else []
    if len(numbers) != 3 or not all(isinstance(number, Real) for number in numbers):
        raise InputError(f'split {split!r}: give the percentages of train, validation and test, such as "60/15/25"')
    return "/".join(map(str, numbers))


def is_split(split: Any) -> bool:
    """Whether this is meant as the percentages of a split, and not as the name of a column.

    Example:
        >>> is_split("60/15/25"), is_split((60, 15, 25)), is_split("fold")
        (True, True, False)
    """
    if isinstance(split, str):
        return "/" in split and set(split) <= set("0123456789./ ")
    return not isinstance(split, Integral)


def parse_split(text: str) -> dict[str, float]:
    """The fractions of a split such as `60/15/25`: train, validation and test, in percent or as fractions.

    Returns:
        Split -> its fraction, in the order train, test, valid.

    Raises:
        InputError: not three positive numbers with the sum 100 or 1.

    Example:
        >>> parse_split("60/15/25")
        {'train': 0.6, 'test': 0.25, 'valid': 0.15}
    """
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    total = sum(numbers)
    if len(numbers) != 3 or not min(numbers) > 0 or not any(abs(total - whole) < 1e-6 * whole for whole in (1, 100)):
        raise InputError(
            f"split {text!r}: give the percentages of train, validation and test, each above 0 and with the sum 100, "
            "such as 60/15/25"
        )
    train, valid, test = (number / total for number in numbers)
    return {"train": train, "test": test, "valid": valid}


def key_entries(given: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Names of arrays in a file as entries `NAME=KEY,KEY`.

    Args:
        given: such entries; or name -> key or keys; or one path of a JSON file with such a mapping.

    Raises:
        InputError: a file that cannot be read, or a value that is neither a key nor a list of keys.

    Example:
        >>> key_entries({"image": ["I_tr", "I_te"], "labels": "Y"})
        ('image=I_tr,I_te', 'labels=Y')
    """
    if isinstance(given, str | PathLike):
        given = (str(given),)
    source = "keys"
    if not isinstance(given, Mapping | list | tuple) or not all(isinstance(one, str) for one in given):
        raise InputError(
            f'{source} {given!r}: give a mapping of names to keys, such as {{"image": ["I_tr", "I_te"]}}, entries such '
            "as image=I_tr,I_te, or the path of a JSON file"
        )
    if not isinstance(given, Mapping):
        if len(given) != 1 or "=" in given[0].partition("://")[0]:
            return tuple(given)
        source = f"keys {given[0]!r}"
        refuse_address(given[0], "keys")
        try:
            given = read_json(Path(given[0]).expanduser(), limit=1 << 24)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{source}: no entry NAME=KEY,KEY, and no JSON file that can be read ({reason}); give entries such as "
                'image=I_tr,I_te, or a file such as {"image": ["I_tr", "I_te"]}'
            ) from None
    entries = []
    for name, keys in given.items() if isinstance(given, Mapping) else ():
        keys = [keys] if isinstance(keys, str) else keys
        if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
            raise InputError(f'{source}: {name} is {keys!r}; give a key, or a list of keys, such as ["I_tr", "I_te"]')
        entries.append(f"{name}={','.join(keys)}")
    if not entries:
        raise InputError(f"{source}: no names; give a mapping of names to keys")
    return tuple(entries)


def parse_keys(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The keys that stand for each name, from entries `NAME=KEY,KEY`.

    Args:
        entries: one key per name for data without splits; two, of train and test; or three, of train, validation and
            test. A name is a modality, `labels`, `ids`, `MODALITY_labels`, `MODALITY_mask` or `class_names`. In tables,
            any number of columns.

    Raises:
        InputError: an entry of another form, or a name given twice.

    Example:
        >>> parse_keys(["image=I_tr,I_te", "labels=L_tr,L_te"])
        {'image': ('I_tr', 'I_te'), 'labels': ('L_tr', 'L_te')}
    """
    keys = dict[str, tuple[str, ...]]()
    for entry in entries:
        name, equals, value = entry.partition("=")
        parts = tuple(part.strip() for part in value.split(","))
        if not equals or not name.strip() or not all(parts):
            raise InputError(f"keys {entry!r}: {KEY_RULE}")
        if name.strip() in keys:
            raise InputError(f"keys: {name.strip()} is given twice; name it once")
        keys[name.strip()] = parts
    return keys
