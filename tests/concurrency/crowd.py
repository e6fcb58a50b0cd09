"""Many processes that begin at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

_ROOT = Path(__file__).parents[__package__.count(".") + 1]


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """`python -m` a module beside this one."""
    command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def together(module: str, arguments: Sequence[Sequence[str]], *, timeout: float = 120.0) -> list[list[str]]:
    """The lines that each process prints. Each has said 'ready' before the first one is told to go."""
    with ExitStack() as stack:
        processes = [stack.enter_context(start(module, *each)) for each in arguments]
        try:
            for process in processes:
                assert process.stdout is not None and process.stdin is not None
                assert process.stdout.readline() == "ready\n", process.communicate()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            answers = [process.communicate(timeout=timeout) for process in processes]
        finally:
            for process in processes:
                process.kill()
    failed = [errors for process, (_, errors) in zip(processes, answers, strict=True) if process.returncode]
    assert not failed, failed[0]
    return [output.splitlines() for output, _ in answers]
