"""Rows of the table as eager kernels, compiled where a backend has none of its own."""

from __future__ import annotations

from ...ir.types import row_exprs
from ...ops import scalar as s
from ...ops import to_c
from .prelude import C_TYPES


def render_row(op: str, dtypes: tuple[str, ...], name: str) -> str:
    """A row's eager kernel, a `MapFn` of csrc/base/view.hpp: pointers and byte steps, outputs first.

    An operand with step 0 is spread over a buffer once; the last, incomplete vector goes through buffers too.
    """
    exprs = row_exprs(op, dtypes)
    wide = s.is_wide(exprs) or any(d in ("f64", "i64") for d in dtypes)
    lanes, outs = to_c.lanes(wide), [e.dtype for e in exprs]
    lines = [f"void {name}(char* const* ptr, const i64* step, i64 n, i64 first) {{"]
    for k, d in enumerate([*outs, *dtypes]):
        lines.append(f"  {C_TYPES[d]} b{k}[{lanes}] __attribute__((aligned(64))) = {{0}};")
        if k >= len(outs):
            lines.append(
                f"  if (step[{k}] == 0) for (int l = 0; l < {lanes}; ++l) b{k}[l] = *(const {C_TYPES[d]}*)ptr[{k}];"
            )
    lines.append(f"  for (i64 j = 0; j < n; j += {lanes}) {{")
    lines += [f"    const i64 rest = n - j, at = first + j, some = MIN(rest, {lanes});"]
    for k, d in enumerate([*outs, *dtypes]):
        lines.append(f"    {C_TYPES[d]}* p{k} = step[{k}] == 0 ? b{k} : ({C_TYPES[d]}*)ptr[{k}] + j;")
        if k >= len(outs):
            copy = f"{{ __builtin_memcpy(b{k}, p{k}, some * sizeof *b{k}); p{k} = b{k}; }}"
            lines.append(f"    if (rest < {lanes} && step[{k}] != 0) {copy}")
            vector = to_c.vector_type(d, wide)
            lines.append(f"    const {vector} a{k - len(outs)} = LOAD({vector}, p{k});")
    body, results = to_c.emit(exprs, [f"a{k}" for k in range(len(dtypes))], wide, "at")
    lines += [f"    {line}" for line in body]
    for k, (d, result) in enumerate(zip(outs, results, strict=True)):
        lines.append(f"    STORE({to_c.vector_type(d, wide)}, rest < {lanes} ? b{k} : p{k}, {result});")
        lines.append(f"    if (rest < {lanes}) __builtin_memcpy(p{k}, b{k}, some * sizeof *b{k});")
    return "\n".join([*lines, "  }", "}"]) + "\n"
