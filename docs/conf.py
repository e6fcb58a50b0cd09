"""The pages. Their Python runs as tests: see tests/docs."""

from __future__ import annotations

import re
from enum import EnumType
from importlib.metadata import version as version_of
from textwrap import indent

from sphinx.application import Sphinx

project = "sessionledger"
copyright = "The sessionledger authors"
author = "The sessionledger authors"
release = version_of("sessionledger")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"sessionledger {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_theme_options = {"navigation_with_keys": True}

copybutton_prompt_text = "$ "


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _read_backticks_as_code)
    app.connect("autodoc-process-signature", _read_signatures)
    app.connect("autodoc-skip-member", _skip_no_more_than_bare_fields)


def _read_backticks_as_code(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings write `name` and fences, as markdown does, and may go on right behind a name: `Run`s."""
    texts = re.split(r"^```(\w+)\n(.*?)^```$", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    for place, text in enumerate(texts):
        if place % 3 == 0:
            texts[place] = re.sub(r"(?<!`)`([^`]+)`(?!`)(\w?)", _literal, text)
        elif place % 3 == 1:
            texts[place] = f".. code-block:: {text}\n\n"
        else:
            texts[place] = indent(text, "   ")
    lines[:] = "".join(texts).split("\n")


def _literal(found: re.Match[str]) -> str:
    return f"``{found[1]}``" + (f"\\ {found[2]}" if found[2] else "")


def _read_signatures(
    app: object, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Protocols and enums are not called; a type is written as in the source."""
    if what == "class" and (getattr(obj, "_is_protocol", False) or isinstance(obj, EnumType)):
        return "", None
    if signature is not None:
        signature = re.sub(r"~?(?:typing|datetime|decimal|collections\.abc)\.", "", signature)
        signature = re.sub(r"Annotated\[(\w+), ~?msgspec\.Meta\([^)]*\)\]", r"\1", signature)
        signature = signature.replace("=<factory>", "={}").replace(" = <factory>", " = {}")
        return signature, returns
    return None


def _skip_no_more_than_bare_fields(
    app: object, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """A field without a word of its own stands in its class's signature; all else is shown, docstring or not."""
    ours = str(getattr(getattr(obj, "fget", obj), "__module__", "")).startswith("sessionledger.")
    return False if ours and not name.startswith("_") and name != "Row" else None
