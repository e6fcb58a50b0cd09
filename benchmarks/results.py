"""What a run of the benchmarks has found: samples as they came, and the figures made of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from itertools import product

import msgspec

from benchmarks.contenders import REGISTRY
from benchmarks.measures import CEILINGS, MEASURES, Measure, target
from benchmarks.scenarios import parse

__all__ = ["Figure", "Results", "Sample", "Spread", "figures"]


class Sample(msgspec.Struct, omit_defaults=True):
    """One scenario of one contender in one repeat: a process."""

    contender: str
    scenario: str
    repeat: int
    parts: dict[str, dict[str, float]] = {}  #: part → statistic → value
    error: str | None = None


class Spread(msgspec.Struct):
    """Values of the repeats in their order, and where they lie."""

    median: float
    low: float
    high: float
    values: list[float]

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), values)


class Figure(msgspec.Struct, omit_defaults=True):
    """A line of the report. `ratio` is taken within each repeat: same seed, measured side by side."""

    backend: str
    contender: str
    scenario: str
    title: str
    unit: str
    value: Spread
    more_is_better: bool = False
    reference: str | None = None  #: a contender, or a part of the same measurement
    reference_value: Spread | None = None
    ratio: Spread | None = None
    target: float | None = None  #: of the ratio; of the value where there is no reference
    met: bool | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.contender, self.scenario, self.title


class Results(msgspec.Struct):
    """Everything that `--json` writes."""

    started_at: str
    options: dict[str, str]
    versions: dict[str, dict[str, str]]  #: by contender
    samples: list[Sample]
    figures: list[Figure]


def figures(samples: Iterable[Sample]) -> list[Figure]:
    """Compare each contender with its backend's ceilings; raw ones only where there are no others."""
    good = [sample for sample in samples if not sample.error]
    scenarios = list(dict.fromkeys(sample.scenario for sample in good))
    return [
        figure
        for contender, scenario in product(_subjects(good), scenarios)
        for figure in _figures(good, contender, scenario)
    ]


def _subjects(samples: list[Sample]) -> list[str]:
    names = {sample.contender for sample in samples}
    return [name for name in REGISTRY if name in names and not REGISTRY[name].raw] or [
        name for name in REGISTRY if name in names
    ]


def _figures(samples: list[Sample], contender: str, scenario: str) -> Iterator[Figure]:
    kind, size = parse(scenario)
    backend = REGISTRY[contender].backend
    for measure in MEASURES:
        values = _values(samples, contender, scenario, measure.part, measure.statistic) if measure.kind == kind else {}
        if not values:
            continue
        figure = Figure(
            backend=backend,
            contender=contender,
            scenario=scenario,
            title=measure.title.format(size=f"{size:,}"),
            unit=measure.unit,
            value=Spread.of(list(values.values())),
            more_is_better=measure.more_is_better,
            target=target(backend, scenario, measure),
        )
        _compare(figure, values, samples, measure)
        yield figure


def _compare(figure: Figure, values: dict[int, float], samples: list[Sample], measure: Measure) -> None:
    contender, part = CEILINGS.get(figure.backend, {}).get(measure.against), measure.part
    if measure.against == "own":
        contender, part = figure.contender, measure.own
    if contender is not None and (contender, part) != (figure.contender, measure.part):
        others = _values(samples, contender, figure.scenario, part, measure.statistic)
        pairs = [(values[repeat], others[repeat]) for repeat in values if others.get(repeat)]
        if pairs:
            figure.reference = part if measure.against == "own" else contender
            figure.reference_value = Spread.of([other for _, other in pairs])
            figure.ratio = Spread.of([value / other for value, other in pairs])
    judged = figure.ratio if measure.against else figure.value
    if figure.target is not None and judged is not None:
        more = figure.more_is_better
        figure.met = judged.median >= figure.target if more else judged.median <= figure.target


def _values(samples: list[Sample], contender: str, scenario: str, part: str, statistic: str) -> dict[int, float]:
    """By repeat."""
    return {
        sample.repeat: sample.parts[part][statistic]
        for sample in samples
        if (sample.contender, sample.scenario) == (contender, scenario) and statistic in sample.parts.get(part, {})
    }
