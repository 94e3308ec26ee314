"""Small C functions for the runtime's tests: compiled once a session, loaded and called through the cold door."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from neurlang import _tensor

SOURCE = r"""
typedef long long i64;

/* ptr: [visits, a byte an element]. Every element must be visited exactly once. */
void visit(void* const* ptr, const i64* n, i64 begin, i64 end) {
  (void)n;
  unsigned char* visits = ptr[0];
  for (i64 i = begin; i < end; ++i) __atomic_fetch_add(visits + i, 1, __ATOMIC_RELAXED);
}

/* ptr: [begins]. Stores the length of each chunk where it begins. */
void chunks(void* const* ptr, const i64* n, i64 begin, i64 end) {
  (void)n;
  ((i64*)ptr[0])[begin] = end - begin;
}

/* ptr: [out, x]; ints: [rounds]. out[i] = f(x[i]), slowly. */
void work(void* const* ptr, const i64* n, i64 begin, i64 end) {
  float* out = ptr[0];
  const float* x = ptr[1];
  for (i64 i = begin; i < end; ++i) {
    volatile float y = x[i];
    for (i64 k = 0; k < n[0]; ++k) y = y * 0.5f;
    out[i] = y;
  }
}

/* ptr: [out, in...]: out = the sum of the int64 cells. */
void add_cells(void* const* ptr, const i64* n, i64 begin, i64 end) {
  (void)begin, (void)end;
  i64 sum = 0;
  for (i64 i = 1; i <= n[0]; ++i) sum += *(const i64*)ptr[i];
  *(i64*)ptr[0] = sum;
}

struct View { char* data; i64 shape[8], strides[8]; int rank; unsigned char dtype; };
struct Epilogue { void (*fn)(void*, i64, i64, i64, i64, i64); void* ctx; void (*take)(void*, i64, i64, const void*);
                  _Bool of_rows; };
struct Call { const struct View *in, *out; const i64* attr; i64* fault; const struct Epilogue* epilogue;
              unsigned short op; unsigned char n_in, n_out, n_attr; };

/* A native kernel: out = attr * in over a strided int64 matrix, then the epilogue. Fails where attr is negative. */
int scale(const struct Call* c) {
  const struct View *x = c->in, *y = c->out;
  if (c->attr[0] < 0) {
    c->fault[0] = c->attr[0], c->fault[1] = 3, c->fault[2] = 1;
    return 1;
  }
  for (i64 i = 0; i < x->shape[0]; ++i)
    for (i64 j = 0; j < x->shape[1]; ++j)
      ((i64*)y->data)[i * y->strides[0] + j * y->strides[1]] =
          c->attr[0] * ((const i64*)x->data)[i * x->strides[0] + j * x->strides[1]];
  if (c->epilogue) c->epilogue->fn(c->epilogue->ctx, 0, 0, x->shape[0], 0, x->shape[1]);
  return 0;
}

/* The same for an epilogue of rows: the first row comes whole, the next in pieces, and the others, 1000 more an
   element, from elsewhere, if they may. */
int scale_rows(const struct Call* c) {
  const struct View *x = c->in, *y = c->out;
  const struct Epilogue* e = c->epilogue;
  if (!e->of_rows) return 1;
  for (i64 i = 0; i < x->shape[0]; ++i) {
    i64 elsewhere[64], *row = i > 1 && e->take ? elsewhere : (i64*)y->data + i * y->strides[0];
    for (i64 j = 0; j < x->shape[1]; ++j)
      row[j] = c->attr[0] * ((const i64*)x->data)[i * x->strides[0] + j * x->strides[1]] + 1000 * (row == elsewhere);
    if (row == elsewhere)
      e->take(e->ctx, i, i + 1, row);
    else if (i == 0)
      e->fn(e->ctx, 0, i, i + 1, 0, x->shape[1]);
    else
      e->fn(e->ctx, 0, i, i + 1, 0, 1), e->fn(e->ctx, 0, i, i + 1, 1, x->shape[1]);
  }
  return 0;
}

/* ptr: [matrix, sums]; ints: [row length]. Adds to what was there: a row must come once. */
void add_rows(void* const* ptr, const i64* n, i64 begin, i64 end) {
  for (i64 i = begin; i < end; ++i)
    for (i64 j = 0; j < n[0]; ++j) ((i64*)ptr[1])[i] += ((const i64*)ptr[0])[i * n[0] + j];
}

/* ptr: [matrix, addend]; ints: [row length]. */
void add_epilogue(void* const* ptr, const i64* n, i64 b, i64 i0, i64 i1, i64 j0, i64 j1) {
  (void)b;
  for (i64 i = i0; i < i1; ++i)
    for (i64 j = j0; j < j1; ++j) ((i64*)ptr[0])[i * n[0] + j] += *(const i64*)ptr[1];
}

#ifdef __x86_64__
void set_mode(unsigned mode) { __builtin_ia32_ldmxcsr(mode); }
unsigned get_mode(void) { return __builtin_ia32_stmxcsr(); }
#else
void set_mode(unsigned mode) { (void)mode; }
unsigned get_mode(void) { return 0; }
#endif
"""


@functools.cache
def elf() -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: programs of native steps were not run")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "native.c", Path(folder) / "native.so"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", target, source], check=True)
        return target.read_bytes()


@functools.cache
def library() -> Any:
    return _tensor.load_library(elf())


def function(name: str, *types: Any, result: Any = None) -> Any:
    """A C function as a Python one."""
    return ctypes.CFUNCTYPE(result, *types)(library().symbol(name))


def slot(index: int, itemsize: int = 1, byte_offset: int = 0, offset_class: int = -1) -> tuple[Any, ...]:
    return ("slot", index, byte_offset, offset_class, itemsize)


def loop(name: str, refs: list[tuple[Any, ...]], n: int, grain: int, ints: tuple[int, ...] = ()) -> dict[str, Any]:
    """A program's step that runs the C function `name` over [0, n)."""
    return {
        "kind": "generated",
        "address": library().symbol(name),
        "refs": refs,
        "ints": list(ints),
        "range": n,
        "grain": grain,
    }


def program(steps: list[dict[str, Any]], n_slots: int, arena_bytes: int = 0, constants: tuple[bytes, ...] = ()) -> Any:
    result = _tensor.Program(n_slots, arena_bytes, list(constants), steps)
    result.keep(library())
    return result
