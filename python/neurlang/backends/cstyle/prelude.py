"""What every file of kernels begins with after the text of vec.h, and how C spells dtypes and widths."""

from __future__ import annotations

from ...ir.types import DTYPES

C_TYPES = {text: info.c for text, info in DTYPES.items()}


def lanes_of(wide: bool, vector_bytes: int) -> int:
    """Lanes of a kernel's vectors."""
    return vector_bytes // (8 if wide else 4)


PRELUDE = """\
typedef __INT64_TYPE__ i64;
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#if defined(__clang__)
#define STREAM(T, p, x) __builtin_nontemporal_store(x, (T*)(p))
#elif NL_VEC_BYTES == 64
#define STREAM(T, p, x) __builtin_ia32_movntps512((float*)(p), (vf32)(x))
#elif NL_VEC_BYTES == 32
#define STREAM(T, p, x) __builtin_ia32_movntps256((float*)(p), (vf32)(x))
#elif defined(__SSE2__)
#define STREAM(T, p, x) __builtin_ia32_movntps((float*)(p), (vf32)(x))
#else
#define STREAM(T, p, x) STORE(T, p, x)
#endif
#if defined(__clang__)
#define SHUFFLE(T, I, x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define SHUFFLE(T, I, x, ...) __builtin_shuffle(x, (I){__VA_ARGS__})
#endif
// Whether a whole register may be read at p although not all of it is ours: it does not reach into another page.
#define READABLE(p) (((__UINTPTR_TYPE__)(p) & 4095) <= 4096 - NL_VEC_BYTES)
#if defined(__SSE2__)
#define STREAM_END() __builtin_ia32_sfence()
#else
#define STREAM_END()
#endif
// Lane masks of the first `count` lanes: loaded at distance `count` from the middle.
static const int nl_first32[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
static const i64 nl_first64[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
#define FIRST32(I, count) LOAD(I, nl_first32 + 16 - MAX(0, MIN(count, 16)))
#define FIRST64(I, count) LOAD(I, nl_first64 + 8 - MAX(0, MIN(count, 8)))
"""
