"""The null backend shows what the passes make, without a compiler."""

from __future__ import annotations

from ir.programs import Generator

from neurlang import passes
from neurlang.backends import null
from neurlang.ir.text import parse_kernel


def test_its_source_is_the_kernels_text() -> None:
    schedule = passes.run(Generator(3).tape.graph())
    built = null.build(schedule, {}, None, "")
    assert built.program is None and built.nbytes == len(built.source)
    texts = built.source.split("\n\n")
    assert [parse_kernel(text) for text in texts] == [step.kernel for step in schedule.kernels]


def test_a_trace_with_it_runs_op_by_op() -> None:
    import neurlang as nl

    f = nl.trace(lambda x: (x * 2 + 1).exp(), backend="null")
    x = nl.arange(4.0)
    assert f(x).tolist() == f(x).tolist() == (x * 2 + 1).exp().tolist()
    assert f.counts.compiled == 1 and "exp" in f.source()
