"""Turns what a person wrote (a suite, a notebook, a command line) into a checked frozen dataclass, or one clear sentence."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from models.names import UnknownName

T = TypeVar("T")


@cache
def _adapter(kind: type) -> TypeAdapter:
    """Building one takes milliseconds, and a suite asks for hundreds."""
    return TypeAdapter(kind)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlevel = 3


def shown(value: object) -> str:
    """A value as a message quotes it: one line, however large it is."""
    return _REPR.repr(value)


class InvalidParameter(ValueError):
    """A value of the wrong type or out of range; the message says where and what was expected."""


def configure(what: str, default: T, overrides: Mapping[str, Any]) -> T:
    """A copy of the dataclass instance ``default`` with ``overrides``, its types checked strictly.

    Raises UnknownName for an unknown field, InvalidParameter for a wrong type or a value that the class itself refuses.
    ``what`` begins the sentence: "model lstm", "task adding".
    """
    known = [field.name for field in fields(default)]  # type: ignore[arg-type]
    for name in overrides:
        if name not in known:
            raise UnknownName(f"parameter of {what}", name, known)
    merged = asdict(default) | dict(overrides)  # type: ignore[call-overload]
    kind: type = type(default)
    try:
        # Strict JSON rules: a list may stand for a tuple and an int for a float, but "20" is no number.
        return cast(T, _adapter(kind).validate_json(json.dumps(merged, allow_nan=False), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, str)) or "parameters"
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidParameter(f"{what}: {where}: {message}; got {shown(first['input'])}") from error
    except (
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # a date, a set; or an infinite number, which no record could hold
        raise InvalidParameter(f"{what}: {error}; write null where a bound shall not apply") from error
