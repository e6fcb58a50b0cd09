"""Options of a driver, given as values or, in a URL, as texts."""

from __future__ import annotations

from sessionledger.errors import InvalidRecordError

__all__ = ["count_of", "flag_of", "seconds_of"]


_FOR_EVER = 1e9  #: seconds


def count_of(name: str, value: int | str, *, least: int) -> int:
    """A whole number. `InvalidRecordError` names the option."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = least - 1
    if number < least or isinstance(value, bool | float):
        raise InvalidRecordError(f"{name} is {value!r}: give an integer of at least {least}", path=name)
    return number


def seconds_of(name: str, value: float | str) -> float:
    """A time that is over once. `InvalidRecordError` names the option."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < _FOR_EVER or isinstance(value, bool):
        raise InvalidRecordError(f"{name} is {value!r}: give a number of seconds above 0", path=name)
    return seconds


def flag_of(name: str, value: bool | str) -> bool:
    """`InvalidRecordError` names the option."""
    found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(str(value).lower())
    if found is None:
        raise InvalidRecordError(f"{name} is {value!r}: give true or false", path=name)
    return found
