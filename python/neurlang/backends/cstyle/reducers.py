"""The functions that reductions call: two vectors combined, 32 lanes halved, blocks joined in adjacent pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...ir.kernel import LANES, Kernel, Reduce
from ...ir.loops import is_wide
from ...ops import scalar as s
from ...ops import to_c
from .prelude import C_TYPES, lanes_of

COMBINE = {"sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "max": s.maximum, "min": s.minimum}
NEUTRAL = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}


def helpers(kernels: Iterable[Kernel], vector_bytes: int) -> str:
    """The functions that the reductions of some kernels call."""
    needed = {
        (r.reducer, kernel.dtypes[r.arg], is_wide(kernel))
        for kernel in kernels
        for r in kernel.body
        if isinstance(r, Reduce)
    }
    return "".join(_reducer(*key, vector_bytes) for key in sorted(needed))


def _reducer(reducer: str, dtype: str, wide: bool, vector_bytes: int) -> str:
    """Combining two vectors, 32 lanes held in vectors, and the results of blocks in adjacent pairs."""
    vector, scalar, name = to_c.vector_type(dtype, wide), C_TYPES[dtype], reducer_name(reducer, dtype, wide)
    lines, (result,) = to_c.emit([COMBINE[reducer](s.arg(0, dtype), s.arg(1, dtype))], ["a", "b"], wide)
    body = "\n".join(f"  {line}" for line in lines)
    fold = "\n".join(f"  {line}" for line in _halving(name, dtype, wide, vector_bytes))
    lanes = ", ".join(f"{vector} x{k}" for k in range(LANES // lanes_of(wide, vector_bytes)))
    return f"""
static inline {vector} {name}({vector} a, {vector} b) {{
{body}
  return {result};
}}
static inline {scalar} {name}_lanes({lanes}) {{
{fold}
  return x0[0];
}}
static inline {scalar} {name}_two({scalar} a, {scalar} b) {{
  return {name}(SPLAT({vector}, a), SPLAT({vector}, b))[0];
}}
static inline int {name}_push({scalar}* stack, int depth, i64 count, {scalar} x) {{
  for (; count & 1; count >>= 1) x = {name}_two(stack[--depth], x);
  stack[depth] = x;
  return depth + 1;
}}
"""


def _halving(name: str, dtype: str, wide: bool, vector_bytes: int) -> Iterator[str]:
    """Statements that combine lane l with lane l + h for h = 16, 8, 4, 2, 1: whole vectors first, then within one."""
    lanes = lanes_of(wide, vector_bytes)
    vectors = LANES // lanes
    while vectors > 1:
        vectors //= 2
        for k in range(vectors):
            yield f"x{k} = {name}(x{k}, x{k + vectors});"
    types = f"{to_c.vector_type(dtype, wide)}, {to_c.vector_type(s.INT_OF[dtype], wide)}"
    half = lanes // 2
    while half > 0:
        indices = ", ".join(str((lane + half) % lanes) for lane in range(lanes))
        yield f"x0 = {name}(x0, SHUFFLE({types}, x0, {indices}));"
        half //= 2


def reducer_name(reducer: str, dtype: str, wide: bool) -> str:
    return f"nl_{reducer}_{to_c.vector_type(dtype, wide)}"
