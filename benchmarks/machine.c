// machine.c: what this machine can do at most: fused multiply-adds and memory traffic, one thread each call.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#define ACCUMULATORS 24
#elif defined(__AVX__)
#define BYTES 32
#define ACCUMULATORS 12
#else
#define BYTES 16
#define ACCUMULATORS 12
#endif
#define LANES (BYTES / 4)
#define HUGE_PAGE (2 << 20)

typedef float vec __attribute__((vector_size(BYTES)));

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Floating-point operations per second of one thread: independent chains, enough of them to hide the latency.
double fma_rate(double seconds) {
  vec a[ACCUMULATORS], x, y;
  for (int i = 0; i < LANES; i++) x[i] = 0.999f, y[i] = 1e-3f;
  for (int i = 0; i < ACCUMULATORS; i++) a[i] = x * (float)i;
  double start = now(), end = start, flops = 0;
  while (end - start < seconds) {
    for (int k = 0; k < 20000; k++) {
#pragma GCC unroll 24
      for (int i = 0; i < ACCUMULATORS; i++) a[i] = a[i] * x + y;
    }
    flops += 20000.0 * ACCUMULATORS * LANES * 2;
    end = now();
  }
  for (int i = 0; i < ACCUMULATORS; i++) __asm__ volatile("" ::"m"(a[i]));
  return flops / (end - start);
}

// A block on huge pages, every page touched; never freed: the process ends soon.
float* huge_block(int64_t bytes) {
  char* raw = mmap(0, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return 0;
  char* block = (char*)(((uintptr_t)raw + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
  madvise(block, bytes, MADV_HUGEPAGE);
  for (int64_t i = 0; i < bytes; i += 4096) block[i] = 1;
  return (float*)block;
}

// Bytes read per second.
double read_rate(const float* block, int64_t bytes) {
  const vec* p = (const vec*)block;
  vec a[8] = {{0}};
  double start = now();
  for (int64_t i = 0; i < bytes / BYTES; i += 8)
    for (int j = 0; j < 8; j++) a[j] += p[i + j];
  double end = now();
  for (int j = 0; j < 8; j++) __asm__ volatile("" ::"m"(a[j]));
  return bytes / (end - start);
}

// Bytes read and written per second by y = 2x with stores that bypass the cache.
double scale_rate(const float* x, float* y, int64_t bytes) {
  double start = now();
#ifdef __x86_64__
  for (int64_t i = 0; i < bytes / 4; i += 4) {
    __m128 v = _mm_load_ps(x + i);
    _mm_stream_ps(y + i, _mm_add_ps(v, v));
  }
  _mm_sfence();
#else
  for (int64_t i = 0; i < bytes / 4; i++) y[i] = x[i] + x[i];
#endif
  return 2.0 * bytes / (now() - start);
}
