// vec.h: the vector dialect of eager and traced kernels: types, loads, and the few things that compilers do not spell
// alike. Plain C11 and C++17 for gcc and clang; the text of every traced kernel file begins with it, so it stays short.
//
// A kernel runs W4 lanes at a time (as many floats as a register holds), or W8 (doubles) when it touches 64-bit values:
// gcc splits wider vectors into scalars. A type's first letter is the part of a register that it fills: v full, h half,
// q quarter, e eighth. W4 lanes: vf32 vi32 vu32 hi16 hu16 qi8 qu8. W8 lanes: vf64 vi64 vu64 hf32 hi32 hu32 qi16 qu16
// ei8 eu8. A float16 or bfloat16 is its bits, a u16, until it is widened to f32. A bool is a byte 0 or 1 in memory and
// a lane mask (0 or -1, an integer of any lane width) in between.
#ifndef NL_VEC_H
#define NL_VEC_H

// Kernels in C that gcc compiles without SSE4.1: forwprop ends gcc 12 on selects between doubles, and without it
// reassoc mixes up comparisons that are used beside their union (a < b, a == b and a <= b).
#if defined(__GNUC__) && !defined(__clang__) && !defined(__cplusplus) && defined(__SSE2__) && !defined(__SSE4_1__)
#pragma GCC optimize("no-tree-forwprop", "no-tree-reassoc")
#endif

#if defined(__AVX512F__)
#define NL_VEC_BYTES 64
#elif defined(__AVX2__)
#define NL_VEC_BYTES 32
#else
#define NL_VEC_BYTES 16
#endif
#if defined(__FMA__) || defined(__aarch64__)
#define NL_HAS_FMA 1
#else
#define NL_HAS_FMA 0
#endif

enum { W4 = NL_VEC_BYTES / 4, W8 = NL_VEC_BYTES / 8 };

// `name_u` is the same vector at any address, whatever was stored there.
#define NL_VEC(name, T, bytes)                        \
  typedef T name __attribute__((vector_size(bytes))); \
  typedef T name##_u __attribute__((vector_size(bytes), aligned(1), may_alias))
NL_VEC(vf32, float, NL_VEC_BYTES);
NL_VEC(vi32, int, NL_VEC_BYTES);
NL_VEC(vu32, unsigned, NL_VEC_BYTES);
NL_VEC(hi16, short, NL_VEC_BYTES / 2);
NL_VEC(hu16, unsigned short, NL_VEC_BYTES / 2);
NL_VEC(qi8, signed char, NL_VEC_BYTES / 4);
NL_VEC(qu8, unsigned char, NL_VEC_BYTES / 4);
NL_VEC(vf64, double, NL_VEC_BYTES);
NL_VEC(vi64, __INT64_TYPE__, NL_VEC_BYTES);
NL_VEC(vu64, __UINT64_TYPE__, NL_VEC_BYTES);
NL_VEC(hf32, float, NL_VEC_BYTES / 2);
NL_VEC(hi32, int, NL_VEC_BYTES / 2);
NL_VEC(hu32, unsigned, NL_VEC_BYTES / 2);
NL_VEC(qi16, short, NL_VEC_BYTES / 4);
NL_VEC(qu16, unsigned short, NL_VEC_BYTES / 4);
NL_VEC(ei8, signed char, NL_VEC_BYTES / 8);
NL_VEC(eu8, unsigned char, NL_VEC_BYTES / 8);

#define LOAD(T, p) (*(const T##_u*)(p))
#define STORE(T, p, x) (*(T##_u*)(p) = (x))
#define SPLAT(T, x) ((x) - (T){0})  // minus, because -0 + 0 is +0
#define CONVERT(T, x) __builtin_convertvector(x, T)
// C has no ?: over vectors. With ^ (not |) gcc finds the blend, also between a variable and a constant.
#define SELECT(T, I, m, a, b) ((T)(((m) & (I)(a)) ^ (~(m) & (I)(b))))
#define NL_FN static inline __attribute__((always_inline, unused))

// Holds a full register that is used more than once: gcc loads it anew for every use.
#if defined(__x86_64__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x)
#endif

#if NL_VEC_BYTES == 64
#define NL_LANES8 {0, 1, 2, 3, 4, 5, 6, 7}
#elif NL_VEC_BYTES == 32
#define NL_LANES8 {0, 1, 2, 3}
#else
#define NL_LANES8 {0, 1}
#endif

// ---- fused multiply-add; a level without it rounds twice ----------------------------------------------------------
#ifndef __has_builtin
#define __has_builtin(x) 0
#endif
#if !NL_HAS_FMA
#define vf32_fma(a, b, c) ((a) * (b) + (c))
#define vf64_fma vf32_fma
#define hf32_fma vf32_fma
#elif __has_builtin(__builtin_elementwise_fma)
#define vf32_fma __builtin_elementwise_fma
#define vf64_fma __builtin_elementwise_fma
#define hf32_fma __builtin_elementwise_fma
#elif defined(__aarch64__)
#define vf32_fma __builtin_aarch64_fmav4sf
#define vf64_fma __builtin_aarch64_fmav2df
#define hf32_fma __builtin_aarch64_fmav2sf
#elif NL_VEC_BYTES == 64
#define vf32_fma(a, b, c) __builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4)
#define vf64_fma(a, b, c) __builtin_ia32_vfmaddpd512_mask(a, b, c, (unsigned char)-1, 4)
#define hf32_fma __builtin_ia32_vfmaddps256
#else
#define vf32_fma __builtin_ia32_vfmaddps256
#define vf64_fma __builtin_ia32_vfmaddpd256
#define hf32_fma __builtin_ia32_vfmaddps
#endif

// ---- a > b ? a : b and a < b ? a : b: the second one when they are equal or unordered -----------------------------
#if defined(__clang__) || !defined(__x86_64__)
#define vf32_max(a, b) SELECT(vf32, vi32, (vi32)((a) > (b)), a, b)
#define vf32_min(a, b) SELECT(vf32, vi32, (vi32)((a) < (b)), a, b)
#define vf64_max(a, b) SELECT(vf64, vi64, (vi64)((a) > (b)), a, b)
#define vf64_min(a, b) SELECT(vf64, vi64, (vi64)((a) < (b)), a, b)
#elif NL_VEC_BYTES == 64
#define vf32_max(a, b) __builtin_ia32_maxps512_mask(a, b, a, (unsigned short)-1, 4)
#define vf32_min(a, b) __builtin_ia32_minps512_mask(a, b, a, (unsigned short)-1, 4)
#define vf64_max(a, b) __builtin_ia32_maxpd512_mask(a, b, a, (unsigned char)-1, 4)
#define vf64_min(a, b) __builtin_ia32_minpd512_mask(a, b, a, (unsigned char)-1, 4)
#elif NL_VEC_BYTES == 32
#define vf32_max __builtin_ia32_maxps256
#define vf32_min __builtin_ia32_minps256
#define vf64_max __builtin_ia32_maxpd256
#define vf64_min __builtin_ia32_minpd256
#else
#define vf32_max __builtin_ia32_maxps
#define vf32_min __builtin_ia32_minps
#define vf64_max __builtin_ia32_maxpd
#define vf64_min __builtin_ia32_minpd
#endif
#define hf32_max(a, b) SELECT(hf32, hi32, (hi32)((a) > (b)), a, b)
#define hf32_min(a, b) SELECT(hf32, hi32, (hi32)((a) < (b)), a, b)

// ---- the larger and the smaller one: -0 < +0, and any NaN gives NaN -------------------------------------------------
// Both orders of an instruction differ in zeros of two signs and in NaNs: their union is -0 then, or a NaN; for +0 it
// is what they have in common. AVX-512 has an instruction that orders zeros but drops a NaN beside a number, which the
// sum of the two gives then; clang names it otherwise.
#define NL_UNORDERED(a, b) (((a) != (a)) | ((b) != (b)))
#define NL_EXTREMA(T, I)                                                                                       \
  NL_FN T T##_maximum(T a, T b) { return (T)(((I)T##_max(a, b) & (I)T##_max(b, a)) | (I)NL_UNORDERED(a, b)); } \
  NL_FN T T##_minimum(T a, T b) { return (T)((I)T##_min(a, b) | (I)T##_min(b, a)); }
#if defined(__AVX512DQ__) && !defined(__clang__)
#define NL_ORDERED(name, T, M, suffix, how)                                           \
  NL_FN T name(T a, T b) {                                                            \
    KEEP(a);                                                                          \
    KEEP(b);                                                                          \
    const T found = __builtin_ia32_range##suffix##512_mask(a, b, how, a, (M) - 1, 4); \
    const M unordered = __builtin_ia32_cmp##suffix##512_mask(a, b, 3, (M) - 1, 4);    \
    return __builtin_ia32_add##suffix##512_mask(a, b, found, unordered, 4);           \
  }
NL_ORDERED(vf32_maximum, vf32, unsigned short, ps, 5)
NL_ORDERED(vf32_minimum, vf32, unsigned short, ps, 4)
NL_ORDERED(vf64_maximum, vf64, unsigned char, pd, 5)
NL_ORDERED(vf64_minimum, vf64, unsigned char, pd, 4)
#else
NL_EXTREMA(vf32, vi32)
NL_EXTREMA(vf64, vi64)
#endif
NL_EXTREMA(hf32, hi32)

// ---- square root (correctly rounded) ------------------------------------------------------------------------------
#define NL_BY_LANE(T, n, expression)             \
  T r;                                           \
  for (int l = 0; l < n; ++l) r[l] = expression; \
  return r
#if __has_builtin(__builtin_elementwise_sqrt)
#define vf32_sqrt __builtin_elementwise_sqrt
#define vf64_sqrt __builtin_elementwise_sqrt
#define hf32_sqrt __builtin_elementwise_sqrt
#elif defined(__aarch64__) && !defined(__clang__)
#define vf32_sqrt __builtin_aarch64_sqrtv4sf
#define vf64_sqrt __builtin_aarch64_sqrtv2df
#define hf32_sqrt __builtin_aarch64_sqrtv2sf
#elif defined(__clang__) || !defined(__x86_64__)
NL_FN vf32 vf32_sqrt(vf32 x) { NL_BY_LANE(vf32, W4, __builtin_sqrtf(x[l])); }
NL_FN vf64 vf64_sqrt(vf64 x) { NL_BY_LANE(vf64, W8, __builtin_sqrt(x[l])); }
NL_FN hf32 hf32_sqrt(hf32 x) { NL_BY_LANE(hf32, W8, __builtin_sqrtf(x[l])); }
#elif NL_VEC_BYTES == 64
#define vf32_sqrt(x) __builtin_ia32_sqrtps512_mask(x, x, (unsigned short)-1, 4)
#define vf64_sqrt(x) __builtin_ia32_sqrtpd512_mask(x, x, (unsigned char)-1, 4)
#define hf32_sqrt __builtin_ia32_sqrtps256
#elif NL_VEC_BYTES == 32
#define vf32_sqrt __builtin_ia32_sqrtps256
#define vf64_sqrt __builtin_ia32_sqrtpd256
#define hf32_sqrt __builtin_ia32_sqrtps
#else
#define vf32_sqrt __builtin_ia32_sqrtps
#define vf64_sqrt __builtin_ia32_sqrtpd
NL_FN hf32 hf32_sqrt(hf32 x) { NL_BY_LANE(hf32, W8, __builtin_sqrtf(x[l])); }
#endif

// ---- y * 2^n for integral n, rounded once; |n| <= 252 (f32), 2044 (f64) and y of moderate size --------------------
#if NL_VEC_BYTES == 64
#define vf32_ldexp(y, n) __builtin_ia32_scalefps512_mask(y, n, y, (unsigned short)-1, 4)
#define vf64_ldexp(y, n) __builtin_ia32_scalefpd512_mask(y, n, y, (unsigned char)-1, 4)
#define hf32_ldexp(y, n) __builtin_ia32_scalefps256_mask(y, n, y, (unsigned char)-1)
#else
// Two exact powers: only the last multiplication can round. The magic number leaves n in a float's lowest bits.
#define NL_LDEXP(T, I, magic, mantissa, bias)                                           \
  NL_FN T T##_ldexp(T y, T n) {                                                         \
    const I whole = (I)(n + magic) - (I)SPLAT(T, magic), half = whole >> 1;             \
    return y * (T)((half + bias) << mantissa) * (T)((whole - half + bias) << mantissa); \
  }
NL_LDEXP(vf32, vi32, 0x1.8p23f, 23, 127)
NL_LDEXP(hf32, hi32, 0x1.8p23f, 23, 127)
NL_LDEXP(vf64, vi64, 0x1.8p52, 52, 1023)
#endif

// ---- whether any lane of a full-register mask is set; lanes of any width, so every byte is looked at ---------------
typedef char vbytes __attribute__((vector_size(NL_VEC_BYTES)));
#if NL_VEC_BYTES == 64
#define ANY(m) (__builtin_ia32_cvtb2mask512((vbytes)(m)) != 0)
#elif NL_VEC_BYTES == 32
#define ANY(m) (__builtin_ia32_pmovmskb256((vbytes)(m)) != 0)
#elif defined(__SSE2__)
#define ANY(m) (__builtin_ia32_pmovmskb128((vbytes)(m)) != 0)
#elif defined(__aarch64__) && !defined(__clang__)
#define ANY(m) (__builtin_aarch64_reduc_umax_scal_v4si_uu((vu32)(m)) != 0)
#else
NL_FN int nl_any(vi64 m) {
  __INT64_TYPE__ r = 0;
  for (int l = 0; l < W8; ++l) r |= m[l];
  return r != 0;
}
#define ANY(m) nl_any((vi64)(m))
#endif
#define UNLIKELY(c) __builtin_expect(c, 0)

// ---- high half of a 32 x 32 bit product ---------------------------------------------------------------------------
NL_FN vu32 vu32_mulhi(vu32 a, vu32 b) {
  const vu64 low = SPLAT(vu64, 0xffffffffu), x = (vu64)a, y = (vu64)b;
  return (vu32)(((x & low) * (y & low)) >> 32 | (((x >> 32) * (y >> 32)) & ~low));
}
NL_FN hu32 hu32_mulhi(hu32 a, hu32 b) { return CONVERT(hu32, (CONVERT(vu64, a) * CONVERT(vu64, b)) >> 32); }

// ---- 64-bit product of the lower halves of 64-bit lanes ------------------------------------------------------------
#if defined(__clang__) || !defined(__x86_64__)
#define vu64_low_product(a, b) (((a) & 0xffffffffu) * ((b) & 0xffffffffu))
#elif NL_VEC_BYTES == 64
typedef long long nl_longs __attribute__((vector_size(64)));
#define vu64_low_product(a, b) \
  ((vu64)__builtin_ia32_pmuludq512_mask((vi32)(a), (vi32)(b), (nl_longs){0}, (unsigned char)-1))
#elif NL_VEC_BYTES == 32
#define vu64_low_product(a, b) ((vu64)__builtin_ia32_pmuludq256((vi32)(a), (vi32)(b)))
#else
#define vu64_low_product(a, b) ((vu64)__builtin_ia32_pmuludq128((vi32)(a), (vi32)(b)))
#endif

// ---- bytes to 32 bits and back: gcc 12 does it element by element where it is not told how --------------------------
#if NL_VEC_BYTES == 64 && !defined(__clang__)
typedef char nl_bytes __attribute__((vector_size(16)));
#define vi32_from_i8(x) __builtin_ia32_pmovsxbd512_mask((nl_bytes)(x), (vi32){0}, (unsigned short)-1)
#define vi32_from_u8(x) __builtin_ia32_pmovzxbd512_mask((nl_bytes)(x), (vi32){0}, (unsigned short)-1)
#define vi32_to_i8(x) ((qi8)__builtin_ia32_pmovdb512_mask(x, (nl_bytes){0}, (unsigned short)-1))
#elif NL_VEC_BYTES == 32 && !defined(__clang__)
#define vi32_from_i8(x) CONVERT(vi32, CONVERT(hi16, x))
#define vi32_from_u8(x) CONVERT(vi32, CONVERT(hu16, x))
#define vi32_to_i8(x) CONVERT(qi8, CONVERT(hi16, x))
#else
#define vi32_from_i8(x) CONVERT(vi32, x)
#define vi32_from_u8(x) CONVERT(vi32, x)
#define vi32_to_i8(x) CONVERT(qi8, x)
#endif

// ---- a0 b0 + a1 b1 of the pairs of 16-bit integers in every lane ---------------------------------------------------
typedef short nl_pairs __attribute__((vector_size(NL_VEC_BYTES)));
#if NL_VEC_BYTES == 64 && !defined(__clang__)
#define vi32_pairs(a, b) __builtin_ia32_pmaddwd512_mask((nl_pairs)(a), (nl_pairs)(b), (vi32){0}, (unsigned short)-1)
#elif NL_VEC_BYTES == 64
#define vi32_pairs(a, b) __builtin_ia32_pmaddwd512((nl_pairs)(a), (nl_pairs)(b))
#elif NL_VEC_BYTES == 32
#define vi32_pairs(a, b) __builtin_ia32_pmaddwd256((nl_pairs)(a), (nl_pairs)(b))
#elif defined(__SSE2__)
#define vi32_pairs(a, b) __builtin_ia32_pmaddwd128((nl_pairs)(a), (nl_pairs)(b))
#else
#define vi32_pairs(a, b) (((a) << 16 >> 16) * ((b) << 16 >> 16) + ((a) >> 16) * ((b) >> 16))
#endif

// ---- sum + a0 b0 + a1 b1 + a2 b2 + a3 b3 of the bytes in every lane, those of a unsigned ----
// Only where nl_has_byte_dots().
#if NL_VEC_BYTES == 64
NL_FN vi32 vi32_add_dots(vi32 sum, vi32 a, vi32 b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // by name: the level does not ask for AVX512-VNNI
  return sum;
}
#endif

// ---- 16-bit floats: to float32, exactly, and back, to nearest even, once; NaN stays NaN ---------------------------
#define NL_BFLOAT16(F, I, U, H)                                                         \
  NL_FN F F##_from_bf16(H x) { return (F)(CONVERT(U, x) << 16); }                       \
  NL_FN H F##_to_bf16(F x) {                                                            \
    const U bits = (U)x, top = bits >> 16, nearest = (bits + 0x7fff + (top & 1)) >> 16; \
    return CONVERT(H, SELECT(U, I, (I)(x != x), top | 0x40, nearest));                  \
  }
NL_BFLOAT16(vf32, vi32, vu32, hu16)
NL_BFLOAT16(hf32, hi32, hu32, qu16)
// Widening scales the exponent by a multiplication, which also makes subnormals normal. Narrowing adds half of a unit
// in the last place, and for subnormals lets the addition of 0.5, whose last bit is worth 2^-24, round.
#define NL_FLOAT16(F, I, U, H)                                                                                \
  NL_FN F F##_from_f16(H x) {                                                                                 \
    const U bits = CONVERT(U, x), low = (bits & 0x7fff) << 13, special = (U)(low >= 0x0f800000) & 0x7f800000; \
    return (F)((U)((F)low * 0x1p112f) | special | (bits & 0x8000) << 16);                                     \
  }                                                                                                           \
  NL_FN H F##_to_f16(F x) {                                                                                   \
    const U bits = (U)x, size = bits & 0x7fffffff, half = (U)SPLAT(F, 0.5f);                                  \
    const U tiny = (U)((F)size + 0.5f) - half, normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13; \
    const U finite = SELECT(U, I, (I)(size < 0x38800000), tiny, normal);                                      \
    const U special = SELECT(U, I, (I)(size > 0x7f800000), SPLAT(U, 0x7e00), SPLAT(U, 0x7c00));               \
    return CONVERT(H, SELECT(U, I, (I)(size < 0x47800000), finite, special) | (bits >> 16 & 0x8000));         \
  }
#if NL_VEC_BYTES == 64
#define vf32_from_f16(x) __builtin_ia32_vcvtph2ps512_mask((hi16)(x), (vf32){0}, (unsigned short)-1, 4)
#define vf32_to_f16(x) ((hu16)__builtin_ia32_vcvtps2ph512_mask(x, 0, (hi16){0}, (unsigned short)-1))
#elif NL_VEC_BYTES == 32 && defined(__F16C__) && !defined(__clang__)
#define vf32_from_f16(x) __builtin_ia32_vcvtph2ps256((hi16)(x))
#define vf32_to_f16(x) ((hu16)__builtin_ia32_vcvtps2ph256(x, 0))
#else
NL_FLOAT16(vf32, vi32, vu32, hu16)
#endif
NL_FLOAT16(hf32, hi32, hu32, qu16)

// ---- exact remainder of a division of any size: shift and subtract on integers ------------------------------------
#define NL_FMOD(name, T, U, mantissa, exponents)                                      \
  static inline __attribute__((unused)) T name(T x, T y) {                            \
    const U one = (U)1 << mantissa, sign = (U)1 << (sizeof(U) * 8 - 1);               \
    const U inf = (U)exponents << mantissa;                                           \
    union {                                                                           \
      T f;                                                                            \
      U u;                                                                            \
    } a = {x}, b = {y};                                                               \
    const U s = a.u & sign;                                                           \
    a.u &= ~sign, b.u &= ~sign;                                                       \
    if (a.u >= inf || b.u > inf || b.u == 0) return (x * y) / (x * y);                \
    if (a.u < b.u) return x;                                                          \
    int ea = (int)(a.u >> mantissa), eb = (int)(b.u >> mantissa);                     \
    U m = (a.u & (one - 1)) | (ea ? one : 0), d = (b.u & (one - 1)) | (eb ? one : 0); \
    ea += !ea, eb += !eb;                                                             \
    for (; m < one; --ea) m <<= 1;                                                    \
    for (; d < one; --eb) d <<= 1;                                                    \
    for (; ea > eb; --ea) m = (m >= d ? m - d : m) << 1;                              \
    if (m >= d) m -= d;                                                               \
    for (; m && m < one; --ea) m <<= 1;                                               \
    if (m) m = ea > 0 ? (m - one) | (U)ea << mantissa : m >> (1 - ea);                \
    a.u = s | m;                                                                      \
    return a.f;                                                                       \
  }
NL_FMOD(nl_fmod_f32, float, unsigned, 23, 255)
NL_FMOD(nl_fmod_f64, double, __UINT64_TYPE__, 52, 2047)
NL_FN vf32 vf32_fmod(vf32 a, vf32 b) { NL_BY_LANE(vf32, W4, nl_fmod_f32(a[l], b[l])); }
NL_FN hf32 hf32_fmod(hf32 a, hf32 b) { NL_BY_LANE(hf32, W8, nl_fmod_f32(a[l], b[l])); }
NL_FN vf64 vf64_fmod(vf64 a, vf64 b) { NL_BY_LANE(vf64, W8, nl_fmod_f64(a[l], b[l])); }

#endif  // NL_VEC_H
