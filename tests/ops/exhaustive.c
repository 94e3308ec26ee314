// exhaustive.c: the largest error of a float32 function, in ULP, over every float32, against libm in float64.
// The kernel, the macros REFERENCE(x) and K(p, n) and vec.h come before this text.
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 4096 };

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double rsqrt(double x) { return 1 / sqrt(x); }

// Newton's steps from a good guess; near 1 through erfc, where 1 - x is exact.
static double erfinv(double x, double guess) {
  if (!(fabs(x) < 1)) return fabs(x) == 1 ? x * INFINITY : NAN;
  long double y = fabs(guess);
  const long double a = fabs(x);
  for (int i = 0; i < 3; ++i) {
    const long double excess = a > 0.5 ? (1 - a) - erfcl(y) : erfl(y) - a;
    y -= excess / (1.12837916709551257390L * expl(-y * y));
  }
  return copysign((double)y, x);
}

// Infinity counts as the first number that does not fit.
static double capped(double x) { return copysign(fmin(fabs(x), 0x1p128), x); }

// 1 / the unit in the last place that a float of this size has.
static double per_ulp(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  const int exponent = (int)(bits >> 52 & 2047) - 1023;
  bits = (uint64_t)(23 - (exponent < -126 ? -126 : exponent) + 1023) << 52;
  memcpy(&x, &bits, 8);
  return x;
}

// The error in units of the last place of the exact value; infinite where a NaN or the sign of a zero is wrong.
static double ulps(float got, double exact) {
  if (isnan(exact) || isnan(got)) return isnan(exact) && isnan(got) ? 0 : INFINITY;
  if (exact == 0 && (got != 0 || signbit(got) != signbit(exact))) return INFINITY;
  return fabs(capped(got) - capped(exact)) * per_ulp(capped(exact));
}

// Every `stride`-th bit pattern from `first`.
double worst(uint64_t first, uint64_t stride, float* at) {
  static float x[BLOCK], y[BLOCK];
  void* p[] = {x, y};
  double most = -1;
  while (first < 1ull << 32) {
    int n = 0;
    for (; n < BLOCK && first < 1ull << 32; ++n, first += stride) {
      const uint32_t bits = (uint32_t)first;
      memcpy(&x[n], &bits, 4);
    }
    K(p, BLOCK);
    for (int i = 0; i < n; ++i) {
      const double error = ulps(y[i], REFERENCE((double)x[i], y[i]));
      if (error > most) most = error, *at = x[i];
    }
  }
  return most;
}
