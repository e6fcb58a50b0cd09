"""What stands between stored content and a terminal: no control character and no secret passes here.

A message may hold anything, also the escape sequence that renames a window or clears a screen.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "redacted", "safe"]

#: Control characters (C0 without tab and newline, DEL, C1), and those that turn the direction of the text around them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
#: To the last @, because a password may hold one; without quotes and blanks, which end a URL inside a sentence.
_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?]*\?)([^\s'\"]+)")
_QUERY_VALUE = re.compile(r"=[^&#]*")


def safe(text: str) -> str:
    r"""The text with control characters written as escapes (``\x1b``); tabs and newlines stay."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text on one line, each stretch of white space as one blank."""
    return safe(" ".join(text.split()))


def redacted(text: str) -> str:
    """A URL, or a sentence that quotes some, without user, password and the values of the query."""
    hidden = _CREDENTIALS.sub("***@", text)
    return _QUERY.sub(lambda found: found[1] + _QUERY_VALUE.sub("=***", found[2]), hidden)
