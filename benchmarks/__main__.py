"""The command line: chooses workloads and peers, fixes the threads before anything is imported, prints and saves."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks

TOOLS = {"__main__", "machine", "models", "peers", "picture", "report", "timing"}


def workloads() -> list[str]:
    """One file a workload: every module of this package that is not part of the machinery."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in TOOLS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(workloads())}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for us and for every peer")
    parser.add_argument("--without", action="append", default=[], metavar="PEER", help="leave a peer out (repeatable)")
    parser.add_argument("--only", type=re.compile, default="", metavar="REGEX", help="only cases whose name matches")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="blocks of every contender; by default a case's own number"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(workloads()):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(workloads())}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def fix_threads(threads: int) -> None:
    """The same processors and threads for everyone: the peers read these variables when they are imported."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Idle threads of OpenBLAS spin for 2^28 cycles, a tenth of a second, beside whoever comes next; 2^18 are 0.1 ms.
    os.environ["OPENBLAS_THREAD_TIMEOUT"] = "18"


def run(workload: ModuleType, only: re.Pattern[str] | str, rounds: int | None) -> list[dict[str, Any]]:
    """Times a workload's cases whose names match; one whose contenders disagree is reported and not timed."""
    from . import report, timing

    results = []
    for case in workload.cases():
        if not re.search(only, case.name):
            continue
        try:
            timings = timing.measure(replace(case, rounds=rounds or case.rounds))
        except timing.Disagreement as error:
            print(error, flush=True)
            results.append({"name": case.name, "error": str(error)})
            continue
        print(report.table(case, timings), flush=True)
        results.append(report.as_json(case, timings))
    return results


def main() -> None:
    options = arguments()
    fix_threads(options.threads)
    from . import machine, peers, report

    peers.setup(options.threads, options.without)
    facts = machine.facts(options.threads)
    print(report.facts_text(facts), flush=True)
    results: dict[str, Any] = {"machine": facts, "workloads": {}}
    for name in options.names or workloads():
        workload = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{name}: {(workload.__doc__ or '').splitlines()[0]}", flush=True)
        results["workloads"][name] = run(workload, options.only, options.rounds)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    print("\n" + report.summary(results["workloads"]), flush=True)
    if any("error" in case for cases in results["workloads"].values() for case in cases):
        raise SystemExit("some contenders disagree")


main()
