"""The pages do what they say: their Python runs, prints what stands below it, and their links lead somewhere.

The Python of a page is one session, in a directory of its own, with `await` at the top level as in `python -m asyncio`.
A block of `text` right below one of `python` is what that prints.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

import sessionledger
from sessionledger.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
#: URLs in the pages' code, and the fixture of the server that they stand for.
SERVERS = {
    "mongodb://localhost:27017/agents": "mongo_server",
    "postgresql://localhost/agents": "postgres_server",
}
COMMANDS_PAGE = ROOT / "docs" / "command-line.md"


class Block(NamedTuple):
    line: int
    code: str
    printed: str | None


def blocks(text: str) -> Iterator[Block]:
    found = list(FENCE.finditer(text))
    for fence, following in zip_longest(found, found[1:]):
        if fence[1] == "python":
            line = text.count("\n", 0, fence.start()) + 1
            below = following is not None and not text[fence.end() : following.start()].strip()
            yield Block(line, fence[2], following[2] if following and below and following[1] == "text" else None)


def run(page: Path, block: Block, names: dict[str, Any], runner: asyncio.Runner) -> str:
    source = "\n" * block.line + block.code
    code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with redirect_stdout(io.StringIO()) as printed:
        result = eval(code, names)
        if inspect.iscoroutine(result):
            runner.run(result)
    return printed.getvalue()


def with_servers(code: str, request: pytest.FixtureRequest) -> str:
    """Where a page names a server, one that is started for the tests stands in, in a place of its own."""
    for url, fixture in SERVERS.items():
        if url in code:
            server = request.getfixturevalue(fixture)
            base, _, query = server.fresh_url().partition("?")
            code = code.replace(f"{url}?", f"{base}?{query}&").replace(url, f"{base}?{query}")
    return code


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    text = with_servers(page.read_text(encoding="utf-8"), request)
    with asyncio.Runner() as runner:
        for block in blocks(text):
            printed = run(page, block, names, runner)
            if block.printed is not None:
                assert printed == block.printed, f"{page}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    local = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in local if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_the_ten_lines_are_ten() -> None:
    (first, *_) = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    inside = first.code.partition("async def main")[2].partition("asyncio.run")[0]
    assert len([line for line in inside.splitlines() if line.strip()]) <= 10


def test_the_test_command_is_the_runners() -> None:
    (command,) = re.findall(r"^python .* tox$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_error_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    errors = [name for name in sessionledger.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in text] == []


def test_every_command_is_explained() -> None:
    text = COMMANDS_PAGE.read_text(encoding="utf-8")
    assert [name for name in app.commands if f"\n## {name}\n" not in text] == []


@pytest.mark.parametrize("name", app.commands)
def test_a_commands_page_names_its_options(name: str) -> None:
    section = COMMANDS_PAGE.read_text(encoding="utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    known = {option for parameter in app.commands[name].params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", section)) <= known
    everywhere = {"--help", "--json", "--namespace", "--store"}
    assert {option for option in known if option.startswith("--")} - everywhere <= set(
        re.findall(r"--[a-z-]+", section)
    )


def test_the_commands_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONLEDGER_URL", "sqlite:///agents.db")
    sample = ROOT / "tests" / "data" / "airline.jsonl"
    (tmp_path / "conversations.jsonl").write_bytes(sample.read_bytes())
    commands = re.findall(r"^\$ sessionledger (.*)$", COMMANDS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands
    for command in commands:
        result = CliRunner().invoke(app, command.partition(" |")[0].split())
        assert result.exit_code == 0, f"{command}: {result.output}"
