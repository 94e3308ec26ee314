"""From the op table to C++: op numbers and rules, one SIMD kernel per map row and dtype, the native kernels' table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = ("map", "source", "reduce", "scan", "sort", "contract", "window", "index", "composite", "opaque")
# what hand-written kernels may call on whole registers, with the bits of the rows of these names
FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf")

Rows = Sequence[Any]


def write(
    rows: Rows, outdir: Path, scalar: ModuleType, to_c: ModuleType, elementary: ModuleType, fingerprint: str
) -> None:
    dtypes = scalar.dtypes.DTYPES
    files = {
        "dtypes.gen.hpp": dtypes_header(dtypes),
        "ops.gen.hpp": ops_header(rows, scalar, fingerprint),
        "map_kernels.gen.cpp": map_kernels(rows, scalar, to_c),
        "native.gen.cpp": native_table(rows),
        "exprs.gen.h": expressions(scalar, to_c, elementary),
    }
    for name, lines in files.items():
        (outdir / name).write_text("\n".join(lines) + "\n")


# ---- dtypes.gen.hpp ---------------------------------------------------------------------------------------------

CATEGORIES = ("bool", "integer", "float")


def dtypes_header(dtypes: dict[str, Any]) -> Iterator[str]:
    yield "// dtypes.gen.hpp: the element types of ops/dtypes.py."
    yield "#pragma once"
    yield "#include <stdint.h>"
    yield ""
    yield "#define NL_DTYPES " + ", ".join(dtypes)
    yield f"#define NL_NUM_DTYPES {len(dtypes)}"
    yield "// name, text, block, bytes of a block, category, the dtype that arithmetic runs in"
    yield "#define NL_DTYPE_INFO \\"
    yield ", \\\n".join(
        f'  {{"{d.name}", "{d.text}", {d.block}, {d.itemsize}, {CATEGORIES.index(d.kind)}, '
        f"DType::{d.wide or d.text}}}"
        for d in dtypes.values()
    )


# ---- rows as expressions ----------------------------------------------------------------------------------------


def outputs_of(row: Any, dtype: str, scalar: ModuleType) -> list[Any]:
    """A map row's output expressions for the compute dtype `dtype`."""
    args = [scalar.arg(i, t if t != "T" else dtype) for i, t in enumerate(row.in_types)]
    outputs = list(scalar.computed(row.expr, args, row.direct))
    expected = [t if t != "T" else dtype for t in row.out_types]
    if [e.dtype for e in outputs] != expected:
        raise TypeError(f"row {row.name}: expression gives {[e.dtype for e in outputs]}, types say {expected}")
    return outputs


def is_map(row: Any) -> bool:
    return row.kind == "map" and row.expr is not None


def key_operand(row: Any) -> int:
    """The operand (inputs first) whose dtype is T."""
    types = (*row.in_types, *row.out_types)
    return types.index("T") if "T" in types else 0


# ---- ops.gen.hpp ------------------------------------------------------------------------------------------------


def ops_header(rows: Rows, scalar: ModuleType, fingerprint: str) -> Iterator[str]:
    yield "// ops.gen.hpp: the op table as C++ sees it. Included by kernels: no C++ standard header."
    yield "#pragma once"
    yield "#include <stdint.h>"
    yield ""
    yield '#include "base/view.hpp"'
    yield ""
    yield "namespace nl {"
    yield ""
    yield "enum class OpKind : uint8_t { " + ", ".join(KINDS) + " };"
    yield f"constexpr uint16_t kNumOps = {len(rows)};"
    yield f'constexpr char kTableFingerprint[] = "{fingerprint}";'
    yield ""
    yield "struct OpInfo {"
    yield "  const char* name;"
    yield "  OpKind kind;"
    yield "  uint8_t key;       // the operand (inputs, then outputs) whose dtype is the compute dtype T"
    yield "  bool reads_index;  // depends on the element's row-major index"
    yield "  bool direct;       // takes narrow dtypes as they are; other rows get them widened"
    yield "  uint16_t weight;   // operations of a map's element, those on half as many lanes counted twice"
    yield "};"
    yield "constexpr OpInfo kOps[kNumOps] = {"
    yield from (f"    {op_info(row, scalar)}," for row in rows)
    yield "};"
    yield ""
    yield "// Rows registered at run time have numbers from kNumOps on and read no index."
    yield 'static constexpr const char* op_name(uint16_t op) { return op < kNumOps ? kOps[op].name : "registered op"; }'
    yield "static constexpr OpKind op_kind(uint16_t op) { return op < kNumOps ? kOps[op].kind : OpKind::map; }"
    yield "static constexpr bool reads_index(uint16_t op) { return op < kNumOps && kOps[op].reads_index; }"
    yield "static constexpr int64_t weight_of(uint16_t op) { return op < kNumOps ? kOps[op].weight : 0; }"
    yield "static constexpr bool is_direct(uint16_t op) { return op < kNumOps && kOps[op].direct; }"
    yield "// The rows that convert to each dtype."
    casts = (position("to_" + d.name, rows) for d in scalar.dtypes.DTYPES.values())
    yield f"constexpr uint16_t kCasts[kDTypes] = {{{', '.join(map(str, casts))}}};"
    for name in ("copy", "index_matmul", "index_select", "matmul", "uniform"):
        spelled = "".join(part.capitalize() for part in name.split("_"))
        yield f"constexpr uint16_t k{spelled} = {position(name, rows)};"
    yield "// The compute dtype of a call, which selects its kernel."
    yield "static inline DType key_dtype(const Call& call) {"
    yield "  const int key = call.op < kNumOps ? kOps[call.op].key : 0;"
    yield "  return key < call.n_in ? call.in[key].dtype : call.out[key - call.n_in].dtype;"
    yield "}"
    yield ""
    yield "}  // namespace nl"


def position(name: str, rows: Rows) -> int:
    return next(number for number, row in enumerate(rows) if row.name == name)


def op_info(row: Any, scalar: ModuleType) -> str:
    index, weight = False, 0
    if is_map(row):
        outputs = outputs_of(row, row.kernels[0], scalar)
        index, weight = scalar.reads_index(outputs), scalar.weight(outputs) * (1 + scalar.is_wide(outputs))
    flags = ", ".join("true" if flag else "false" for flag in (index, row.direct))
    return f'{{"{row.name}", OpKind::{row.kind}, {key_operand(row)}, {flags}, {weight}}}'


# ---- map_kernels.gen.cpp ----------------------------------------------------------------------------------------


def map_kernels(rows: Rows, scalar: ModuleType, to_c: ModuleType) -> Iterator[str]:
    yield "// map_kernels.gen.cpp: one elementwise kernel per map row and compute dtype; compiled once per ISA level."
    yield '#include "ops.gen.hpp"'
    yield '#include "simd/map.hpp"'
    yield ""
    yield "namespace nl::NL_ISA {"
    yield "namespace {"
    for row in filter(is_map, rows):
        for dtype in row.kernels:
            yield ""
            yield from map_kernel(row, dtype, scalar, to_c)
    yield ""
    yield "}  // namespace"
    yield ""
    yield "extern const MapFn map_table[kNumOps][kDTypes] = {"
    yield from (f"    {{{', '.join(table_entry(row, d) for d in scalar.dtypes.DTYPES)}}}," for row in rows)
    yield "};"
    yield ""
    yield "}  // namespace nl::NL_ISA"


def kernel_name(row: Any, dtype: str) -> str:
    return f"map_{row.name}_{dtype}"


def table_entry(row: Any, dtype: str) -> str:
    return kernel_name(row, dtype) if is_map(row) and dtype in row.kernels else "nullptr"


def map_kernel(row: Any, dtype: str, scalar: ModuleType, to_c: ModuleType) -> Iterator[str]:
    outputs = outputs_of(row, dtype, scalar)
    n_out = len(outputs)
    in_types = [t if t != "T" else dtype for t in row.in_types]
    wide = scalar.is_wide(outputs) or any(scalar.SIZE[t] == 8 for t in in_types)
    dtypes = [e.dtype for e in outputs] + in_types
    vectors = [to_c.vector_type(t, wide) for t in dtypes]
    lanes, indexed = to_c.lanes(wide), scalar.reads_index(outputs)
    statements, results = to_c.emit(outputs, [f"x{i}" for i in range(len(in_types))], wide, prefix="v")

    first = "int64_t first" if indexed else "int64_t"
    yield f"void {kernel_name(row, dtype)}(char* const* ptr, const int64_t* step, int64_t n, {first}) {{"
    yield f"  static const uint8_t size[] = {{{', '.join(str(scalar.SIZE[t]) for t in dtypes)}}};"
    yield f"  MapLoop loop(size, {len(dtypes)}, {n_out}, {lanes}, ptr, step, n);"
    if indexed:
        yield "  int64_t i = first;"
    yield "  do {"
    yield "    char " + ", ".join(f"*p{k} = loop.at[{k}]" for k in range(len(dtypes))) + ";"
    yield "    const int64_t " + ", ".join(f"s{k} = loop.stride[{k}]" for k in range(len(dtypes))) + ";"
    loads = []
    for k, name in enumerate(vectors[n_out:]):
        loads.append(f"{name} x{k} = LOAD({name}, p{n_out + k});")
        if name[0] == "v" and len(re.findall(rf"\bx{k}\b", " ".join((*statements, *results)))) > 1:
            loads.append(f"KEEP(x{k});")
    if indexed:  # the operands are numbers: one vector of each, and of what follows from them, serves all elements
        yield from (f"    {line}" for line in loads)
    yield "    for (int64_t left = loop.vectors; left > 0; --left) {"
    if not indexed:
        yield from (f"      {line}" for line in loads)
    yield from (f"      {statement}" for statement in statements)
    for k, (name, result) in enumerate(zip(vectors[:n_out], results, strict=True)):
        yield f"      STORE({name}, p{k}, {result});"
    yield from (f"      p{k} += s{k};" for k in range(len(dtypes)))
    if indexed:
        yield f"      i += {lanes};"
    yield "    }"
    yield "  } while (loop.next());"
    yield "}"


# ---- native.gen.cpp ---------------------------------------------------------------------------------------------


def native_table(rows: Rows) -> Iterator[str]:
    names = sorted({row.native for row in rows if row.native})
    yield "// native.gen.cpp: the hand-written kernels by op number; compiled once per ISA level."
    yield '#include "ops.gen.hpp"'
    yield ""
    yield "namespace nl::NL_ISA {"
    yield ""
    yield from (f"int {name}(const Call&);" for name in names)
    yield ""
    yield "extern const NativeFn native_table[kNumOps] = {"
    yield from (f"    {row.native or 'nullptr'},  // {row.name}" for row in rows)
    yield "};"
    yield ""
    yield "}  // namespace nl::NL_ISA"


# ---- exprs.gen.h ------------------------------------------------------------------------------------------------


def expressions(scalar: ModuleType, to_c: ModuleType, elementary: ModuleType) -> Iterator[str]:
    yield "// exprs.gen.h: elementary functions of one register, for hand-written kernels; the bits of the map kernels."
    yield "#pragma once"
    yield '#include "simd/vec.h"'
    for name in FUNCTIONS:
        for dtype in ("f32", "f64"):
            output = getattr(elementary, name)(scalar.arg(0, dtype))
            vector = to_c.vector_type(dtype, scalar.is_wide([output]))
            statements, (result,) = to_c.emit([output], ["x"])
            yield ""
            yield f"NL_FN {vector} nl_{name}_{dtype}({vector} x) {{"
            yield from (f"  {statement}" for statement in statements)
            yield f"  return {result};"
            yield "}"
