"""The tables that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.results import Figure, Results, Spread

__all__ = ["comparison", "tables"]

HEAD = ("", "", "[min-max]", "", "reference", "[min-max]", "ratio", "[min-max]", "target", "")


def tables(results: Results) -> Iterator[str]:
    """Versions, a table a contender, what went wrong."""
    for contender, versions in results.versions.items():
        yield f"{contender}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    for contender, figures in groupby(results.figures, lambda figure: figure.contender):
        yield from ("", *_table(contender, list(figures)))
    for sample in results.samples:
        if sample.error:
            yield f"ERROR {sample.contender} {sample.scenario}, repeat {sample.repeat}: {sample.error}"


def _table(contender: str, figures: Sequence[Figure]) -> Iterator[str]:
    names = [figure.reference for figure in figures if figure.reference]
    letters = {name: chr(ord("a") + index) for index, name in enumerate(dict.fromkeys(names))}
    repeats = max(len(figure.value.values) for figure in figures)
    yield f"{contender}; repeats: {repeats}; values: their median; ratio: the median of each repeat's own ratio"
    rows = [(HEAD[0], contender.partition("-")[0], *HEAD[2:]), *[_row(figure, letters) for figure in figures]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f"{row[0]:<{widths[0]}}  {'  '.join(cells)}".rstrip()
    if letters:
        yield "reference: " + ", ".join(f"{letter} {name}" for name, letter in letters.items())


def _row(figure: Figure, letters: dict[str, str]) -> tuple[str, ...]:
    bound = ""
    if figure.target is not None:
        sign = "≥" if figure.more_is_better else "≤"
        bound = f"{sign} {figure.target:g}" + ("x" if figure.ratio else f" {figure.unit}")
    return (
        figure.title,
        *_cells(figure.value),
        figure.unit,
        *(
            _cells(figure.reference_value, " " + letters[figure.reference or ""])
            if figure.reference_value
            else ("", "")
        ),
        *(_cells(figure.ratio, "x") if figure.ratio else ("", "")),
        bound,
        {None: "", True: "met", False: "MISSED"}[figure.met],
    )


def _cells(spread: Spread, suffix: str = "") -> tuple[str, str]:
    return _number(spread.median) + suffix, f"[{_number(spread.low)}-{_number(spread.high)}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def comparison(now: Results, before: Results) -> Iterator[str]:
    """Which figures got worse, or better, than in an earlier run: medians outside the other run's spread, by over 3 %.

    Compared are ratios, and sizes where there is no reference; times of two runs have nothing to say to each other.
    """
    earlier = {figure.key: figure for figure in before.figures}
    unchanged = 0
    yield f"compared with the run of {before.started_at}"
    for new in now.figures:
        old = earlier.get(new.key)
        pair = _comparable(old, new) if old else None
        if pair is None:
            continue
        word = _verdict(*pair, new.more_is_better)
        if word is None:
            unchanged += 1
            continue
        sign = "x" if new.ratio else f" {new.unit}"
        cells = [" ".join(_cells(spread, sign)) for spread in pair]
        yield f"{word:<6}  {new.contender}  {new.title}: {' → '.join(cells)}"
    yield f"{unchanged} figures are within the spread"


def _comparable(old: Figure, new: Figure) -> tuple[Spread, Spread] | None:
    if old.ratio and new.ratio and old.reference == new.reference:
        return old.ratio, new.ratio
    if not new.reference and new.unit in ("B", "MB"):
        return old.value, new.value
    return None


def _verdict(then: Spread, here: Spread, more_is_better: bool) -> str | None:
    if here.median > max(then.high, then.median * 1.03) and then.median < here.low:
        return "better" if more_is_better else "WORSE"
    if here.median < min(then.low, then.median / 1.03) and then.median > here.high:
        return "WORSE" if more_is_better else "better"
    return None
