"""Options of a driver, given as values or, in a URL, as texts."""

from __future__ import annotations

from sessionledger.errors import InvalidRecordError

__all__ = ["count_of", "seconds_of"]


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
    if not 0 < seconds < float("inf") or isinstance(value, bool):
        raise InvalidRecordError(f"{name} is {value!r}: give a number of seconds above 0", path=name)
    return seconds
