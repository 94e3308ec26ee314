// accuracy.c: the largest errors of kernels of a function, in units in the last place, over many arguments.
//
// Before this text come T (float or double), WIDE (double or long double, in which the reference computes), DIGITS (of
// T's fraction), SMALLEST and LARGEST (T's normal exponents) and REFERENCE(x, y, guess), which may use these functions:
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 4096 };

#if defined(__x86_64__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
// libmvec's vector functions are exact to 4 units of a double: 2^-27 of a float's.
#define SIMD __attribute__((simd("notinbranch")))
SIMD double exp(double);
SIMD double exp2(double);
SIMD double expm1(double);
SIMD double log(double);
SIMD double log2(double);
SIMD double log10(double);
SIMD double log1p(double);
SIMD double sin(double);
SIMD double cos(double);
SIMD double tan(double);
SIMD double asin(double);
SIMD double acos(double);
SIMD double atan(double);
SIMD double sinh(double);
SIMD double cosh(double);
SIMD double tanh(double);
SIMD double asinh(double);
SIMD double acosh(double);
SIMD double atanh(double);
SIMD double erf(double);
SIMD double erfc(double);
SIMD double pow(double, double);
SIMD double atan2(double, double);
SIMD double hypot(double, double);
#endif

// A function of either width: NAME for double, NAMEl for long double.
#define OF(name, x) _Generic((WIDE)0, double: name, long double: name##l)(x)
#define OF2(name, x, y) _Generic((WIDE)0, double: name, long double: name##l)(x, y)

static inline WIDE sigmoid(WIDE x) { return 1 / (1 + OF(exp, -x)); }
static inline WIDE rsqrt(WIDE x) { return 1 / OF(sqrt, x); }
static inline WIDE silu(WIDE x) { return x / (1 + OF(exp, -x)); }
static inline WIDE softplus(WIDE x) { return x > 0 ? x + OF(log1p, OF(exp, -x)) : OF(log1p, OF(exp, x)); }
static inline WIDE logsigmoid(WIDE x) { return -softplus(-x); }
static inline WIDE mish(WIDE x) { return x * OF(tanh, softplus(x)); }
static inline WIDE selu(WIDE x) {
  return (WIDE)1.0507009873554804934193349852946L *
         (x > 0 ? x : (WIDE)1.6732632423543772848170429916717L * OF(expm1, x));
}

// Newton's steps from a good guess; far from 0 through erfc, where 1 - x is exact.
static inline WIDE erfinv(WIDE x, WIDE guess) {
  const WIDE a = OF(fabs, x);
  WIDE y = OF(fabs, guess);
  for (int i = 0; i < 2; ++i) {
    const WIDE excess = a > 0.5 ? (1 - a) - OF(erfc, y) : OF(erf, y) - a;
    y -= excess / ((WIDE)1.12837916709551257390L * OF(exp, -y * y));
  }
  return !(a < 1) ? (a == 1 ? x * (WIDE)INFINITY : (WIDE)NAN) : OF2(copysign, y, x);
}

// Infinity counts as the first number that does not fit.
static WIDE capped(WIDE x) { return OF2(copysign, OF2(fmin, OF(fabs, x), 2 * OF2(ldexp, 1, LARGEST)), x); }

// The error in units that T has at the exact value; infinite where a NaN or the sign of a zero is wrong.
static double ulps(T got, WIDE exact) {
  if (isnan(exact) || isnan(got)) return isnan(exact) && isnan(got) ? 0 : INFINITY;
  if (exact == 0 && (got != 0 || !signbit(got) != !signbit(exact))) return INFINITY;
  const WIDE rounded = capped(exact);
  const int exponent = rounded == 0 ? SMALLEST : OF(ilogb, rounded);
  return (double)OF2(ldexp, OF(fabs, capped(got) - rounded), DIGITS - (exponent < SMALLEST ? SMALLEST : exponent));
}

// Whether an error may be the largest so far: fast for floats; equal bits are never suspicious.
static int suspicious(const T* got, const WIDE* exact, double most) {
  if (sizeof(T) == 8) return 1;
  int64_t found = 0;
  for (int i = 0; i < BLOCK; ++i) {
    int64_t bits;
    const double value = (double)exact[i];
    memcpy(&bits, &value, 8);
    int64_t exponent = (bits >> 52 & 2047) - 1023;
    exponent = exponent < SMALLEST ? SMALLEST : exponent;
    bits = (DIGITS - exponent + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, 8);
    const double error = fabs((double)got[i] - value) * scale;
    const float rounded = (float)value;
    int32_t a, b;
    memcpy(&a, got + i, 4);
    memcpy(&b, &rounded, 4);
    const int good = (error <= most && value != 0) | (a == b) | (value != value && got[i] != got[i]);
    found |= !good;
  }
  return found != 0;
}

// ---- arguments ----

static uint64_t mix(uint64_t x) {  // SplitMix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

static T any(uint64_t bits) {
  T x;
  memcpy(&x, &bits, sizeof(T));
  return x;
}

static double unit(uint64_t bits) { return (double)(int64_t)bits * 0x1p-63; }  // in [-1, 1)

// Any bits; sizes from 2^-60 to 2^12; moderate numbers; and pairs whose power is finite.
static void draw(uint64_t number, T* x, T* y) {
  const uint64_t a = mix(2 * number), b = mix(2 * number + 1);
  switch (number % 4) {
    case 0: *x = any(a), *y = any(b); return;
    case 1:
      *x = (T)copysign(exp2(36 * unit(a) - 24), unit(b)), *y = (T)copysign(exp2(36 * unit(b) - 24), unit(a));
      return;
    case 2: *x = (T)(8 * unit(a)), *y = (T)(8 * unit(b)); return;
    default: *x = fabs(any(a)), *y = (T)(1.01 * LARGEST * unit(b) / log2(fabs((double)*x)));
  }
}

// ---- the search ----

typedef void (*Kernel)(void* const* p, int64_t n);

double error_at(const T* at, int operands, Kernel kernel) {
  static T x[BLOCK], y[BLOCK], got[BLOCK];
  x[0] = at[0], y[0] = at[1];
  kernel((void*[]){x, operands == 2 ? y : got, got}, BLOCK);
  return ulps(got[0], REFERENCE((WIDE)x[0], (WIDE)y[0], (WIDE)got[0]));
}

// Over the numbers first, first + stride, … below `end`: with `drawn` they number random arguments, without they are
// the bits of x. For each kernel the largest error above what `most` holds, and its arguments.
void search(uint64_t first, uint64_t stride, uint64_t end, int drawn, int operands, const Kernel* kernels, int count,
            double* most, T* at) {
  static T x[BLOCK], y[BLOCK], got[BLOCK];
  static WIDE exact[BLOCK];
  while (first < end) {
    for (int i = 0; i < BLOCK; ++i, first += first < end ? stride : 0) {
      if (first >= end)
        x[i] = x[0], y[i] = y[0];
      else if (drawn)
        draw(first, x + i, y + i);
      else
        x[i] = any(first), y[i] = 0;
    }
    void* p[] = {x, operands == 2 ? y : got, got};  // inputs, then the output
    for (int k = 0; k < count; ++k) {
      kernels[k](p, BLOCK);
      if (k == 0) {
#pragma omp simd
        for (int i = 0; i < BLOCK; ++i) exact[i] = REFERENCE((WIDE)x[i], (WIDE)y[i], (WIDE)got[i]);
      }
      if (!suspicious(got, exact, most[k])) continue;
      for (int i = 0; i < BLOCK; ++i) {  // against the scalar functions: the vector ones are careless near underflow
        const double error = ulps(got[i], REFERENCE((WIDE)x[i], (WIDE)y[i], (WIDE)got[i]));
        if (error > most[k]) most[k] = error, at[2 * k] = x[i], at[2 * k + 1] = y[i];
      }
    }
  }
}
