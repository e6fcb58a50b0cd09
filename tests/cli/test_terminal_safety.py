"""No control character and no secret reaches a terminal."""

from __future__ import annotations

import pytest

from sessionledger.cli.output import clipped
from sessionledger.cli.safety import one_line, redacted, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb", "a\\rb"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("\u202eabc\u2069", "\\u202eabc\\u2069"),
        ("line\r\nnext\ttab", "line\nnext\ttab"),
        ("[bold]Zürich 🙂[/bold] \u200d", "[bold]Zürich 🙂[/bold] \u200d"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_one_line_has_no_line_breaks() -> None:
    assert one_line(" a\n\n b\tc\x1b ") == "a b c\\x1b"


def test_clipped_text_keeps_to_its_columns() -> None:
    assert clipped("abcdef", 6) == "abcdef"
    assert clipped("abcdefg", 6) == "abcde…"
    assert clipped("日本語", 6) == "日本語"
    assert clipped("日本語の", 6) == "日本…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgres://ann:s3cret@db.example/x", "postgres://***@db.example/x"),
        ("postgres://ann:s3c@ret/with#odd?signs@db.example/x", "postgres://***@db.example/x"),
        ("redis://db/0?password=s3cret&ssl=true", "redis://db/0?password=***&ssl=***"),
        ("cannot reach 'mongodb://ann:s3@db/x?w=1', try again", "cannot reach 'mongodb://***@db/x?w=***', try again"),
        ("postgres://db/x?user=ann&password=s3c%20ret#part", "postgres://db/x?user=***&password=***#part"),
    ],
)
def test_urls_are_shown_without_secrets(text: str, shown: str) -> None:
    assert redacted(text) == shown
