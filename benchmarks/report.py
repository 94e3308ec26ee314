"""The tables of a benchmark run and its JSON form."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from .timing import OURS, Case, Timing

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    scale, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def ratios(timings: dict[str, Timing]) -> dict[str, dict[str, float]]:
    """Our best time over each peer's, of medians and of minima; below 1 is faster than the peer."""
    ours = [t for name, t in timings.items() if name.startswith(OURS)]
    if not ours:
        return {}
    median, minimum = min(t.median for t in ours), min(t.minimum for t in ours)
    peers = {name: t for name, t in timings.items() if not name.startswith(OURS)}
    return {name: {"median": median / t.median, "minimum": minimum / t.minimum} for name, t in peers.items()}


def table(case: Case, timings: dict[str, Timing]) -> str:
    """The case as lines of text: median, minimum, the best rate, our best time over each peer's."""
    against = ratios(timings)
    lines = [f"{case.name}", f"  {'':28}{'median':>10}{'minimum':>11}{'rate':>18}{'ours/peer: medians, minima':>30}"]
    for name, t in timings.items():
        rate = f"{case.work / t.minimum / 1e9:.1f} {case.rate_unit}" if case.work else ""
        ratio = "{median:.2f}, {minimum:.2f}".format(**against[name]) if name in against else ""
        lines.append(f"  {name:28}{duration(t.median):>10}{duration(t.minimum):>11}{rate:>18}{ratio:>30}")
    lines += [f"  {key}: {value}" for key, value in case.notes.items()]
    return "\n".join(lines)


def facts_text(facts: dict[str, Any]) -> str:
    values = {key: f"{value:.1f}" if isinstance(value, float) else value for key, value in facts.items()}
    return "\n".join(f"  {key:32}{value}" for key, value in values.items())


def best_ratio(case: dict[str, Any], of: str = "median") -> float | None:
    """Our time over the best peer's, of a case in JSON form; None where no peer took part."""
    return max((ratio[of] for ratio in case.get("ratios", {}).values()), default=None)


def summary(workloads: dict[str, list[dict[str, Any]]]) -> str:
    """For each workload the geometric mean of our times over the best peer's, and the worst case."""
    lines = [f"{'ours / best peer, medians':28}{'cases':>6}{'mean':>8}{'worst':>8}"]
    for name, cases in workloads.items():
        known = [(ratio, case["name"]) for case in cases if (ratio := best_ratio(case)) is not None]
        if known:
            worst, where = max(known)
            mean = statistics.geometric_mean(ratio for ratio, _ in known)
            lines.append(f"{name:28}{len(known):6}{mean:8.2f}{worst:8.2f}  {where}")
    return "\n".join(lines)


def as_json(case: Case, timings: dict[str, Timing]) -> dict[str, Any]:
    return {
        "name": case.name,
        "seconds": {name: asdict(t) for name, t in timings.items()},
        "ratios": ratios(timings),
        "notes": case.notes,
    }
