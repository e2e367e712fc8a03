"""JSON from files: one reader, which bounds size and depth, and checks types and ranges against a schema.

A schema is made of plain values:

- a type: `str`, `bool`, `int`, `float` (a whole number fits, too), or `ANY`;
- `Number(low, high, whole)`: a number in a range, ends included;
- `[x]`: a list of `x`;
- `{str: x}`: an object with any names, whose values are `x`;
- `{"name": x, "other?": y}`: an object with these names; a name that ends in `?` may be missing, others may be there;
- `frozenset({"x", "y"})`: one of these strings;
- `(x, y)`: either; `None`: null.
"""

import json
import math
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mrl_jax.errors import shortened

__all__ = ["ANY", "Number", "check_json", "parse_json", "read_json"]

ANY: Any = object()
"""Schema of any value."""

LIMIT = 1 << 30
"""Bytes of a file, at most. The longest, `noise.json`, has a number per training sample."""

_DEPTH = 64
_KINDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", None: "null"}


class Number(NamedTuple):
    """Schema of a number in a range.

    Attributes:
        low: the lowest.
        high: the highest.
        whole: whether it is a whole number.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False


def read_json(path: Path, schema: Any = ANY, limit: int = LIMIT) -> Any:
    """The value in a JSON file.

    Args:
        path: the file, in UTF-8.
        schema: what it must hold.
        limit: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long, is no JSON, or does not fit; the message, one short line, does not name the file.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return parse_json(content, schema)


def parse_json(text: str | bytes, schema: Any = ANY) -> Any:
    """The value of a JSON text.

    Args:
        text: the text; bytes are UTF-8.
        schema: what it must hold.

    Raises:
        ValueError: it is no JSON, has more than 64 levels or a number that is not finite, or does not fit the schema.

    Example:
        >>> parse_json('{"epochs": [3, 5]}', {"epochs": [Number(1, whole=True)]})
        {'epochs': [3, 5]}
        >>> parse_json('{"epochs": [3, "x"]}', {"epochs": [Number(1, whole=True)]})
        Traceback (most recent call last):
        ValueError: epochs[1] is 'x', not a whole number from 1
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}: line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"it has more than {_DEPTH} levels") from None
    except ValueError as error:  # whole numbers of more than 4,300 digits
        raise ValueError(shortened(str(error))) from None
    check_json(value, schema)
    return value


def check_json(value: Any, schema: Any) -> None:
    """Check a value that another library read from JSON.

    Raises:
        ValueError: as in `parse_json`.
    """
    _check_plain(value)
    _check(value, schema, "")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _check_plain(value: Any) -> None:
    """Bounds that hold for every file: levels, and numbers that are finite as floats."""
    level = [value]
    for _ in range(_DEPTH):
        numbers = [x for x in level if type(x) in (int, float)]
        if any(not -sys.float_info.max <= x <= sys.float_info.max for x in numbers):
            raise ValueError("it holds a number beyond 1.8e308")
        inner = [x.values() if type(x) is dict else x for x in level if type(x) in (dict, list)]
        level = list(chain.from_iterable(inner))
        if not level:
            return
    raise ValueError(f"it has more than {_DEPTH} levels")


def _check(value: Any, schema: Any, where: str) -> None:
    """Compare a value with a schema.

    Raises:
        ValueError: it does not fit; the message says where.
    """
    if schema is ANY:
        return
    if isinstance(schema, tuple) and not isinstance(schema, Number):
        _check_either(value, schema, where)
    elif isinstance(schema, list):
        if type(value) is not list:
            raise _wrong(value, "a list", where)
        if schema[0] in (int, str) and set(map(type, value)) <= {schema[0]}:
            return  # long lists of labels, quickly
        for i, x in enumerate(value):
            _check(x, schema[0], f"{where}[{i}]")
    elif isinstance(schema, Mapping):
        _check_object(value, schema, where)
    elif isinstance(schema, frozenset):
        if type(value) is not str or value not in schema:
            raise _wrong(value, _described(schema), where)
    elif isinstance(schema, Number):
        kind = (int,) if schema.whole else (int, float)
        if type(value) not in kind or not schema.low <= value <= schema.high:
            raise _wrong(value, _described(schema), where)
    elif not (type(value) is schema or (schema is float and type(value) is int) or value is schema is None):
        raise _wrong(value, _described(schema), where)


def _check_either(value: Any, schemas: tuple[Any, ...], where: str) -> None:
    errors = []
    for schema in schemas:
        try:
            return _check(value, schema, where)
        except ValueError as error:
            errors.append(error)
    if isinstance(value, dict | list):
        raise errors[-1]  # the last of the alternatives is the object or list
    raise _wrong(value, " or ".join(map(_described, schemas)), where)


def _check_object(value: Any, schema: Mapping[Any, Any], where: str) -> None:
    if type(value) is not dict:
        raise _wrong(value, "an object", where)
    start = f"{where}." if where else ""
    if str in schema:
        for name, x in value.items():
            _check(x, schema[str], f"{start}{shortened(name, 60)}")
        return
    needed = {name.removesuffix("?"): (name.endswith("?"), kind) for name, kind in schema.items()}
    if missing := sorted(name for name, (optional, _) in needed.items() if not optional and name not in value):
        raise ValueError(f"{', '.join(start + name for name in missing)} missing")
    for name, (_, kind) in needed.items():
        if name in value:
            _check(value[name], kind, f"{start}{name}")


def _wrong(value: Any, needed: str, where: str) -> ValueError:
    if not where:
        return ValueError(f"it holds no {needed.split()[-1]}")
    kind = "an object" if type(value) is dict else "a list" if type(value) is list else None
    return ValueError(f"{where} is {kind or shortened(repr(value), 60)}, not {needed}")


def _described(schema: Any) -> str:
    if isinstance(schema, Number):
        ends = f" from {schema.low:g}" if schema.low > -math.inf else ""
        return f"a {'whole ' * schema.whole}number{ends}" + (f" to {schema.high:g}" if schema.high < math.inf else "")
    if isinstance(schema, frozenset):
        return " or ".join(sorted(schema))
    return "a list" if isinstance(schema, list) else "an object" if isinstance(schema, Mapping) else _KINDS[schema]
