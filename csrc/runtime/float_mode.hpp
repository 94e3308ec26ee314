// float_mode.hpp: computes under the default floating-point mode, whatever the calling program has set.
#pragma once
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace nl {

// While it lives: round to nearest, subnormals kept, no traps. A program that set flush-to-zero (or a library that did
// so behind its back) gets the same bits, and its own mode back.
class DefaultFloatMode {
 public:
  DefaultFloatMode() : saved_(read()) {
    if ((saved_ & kControl) != kDefault) write(kDefault);
  }
  ~DefaultFloatMode() {
    if ((saved_ & kControl) != kDefault) write(saved_);
  }
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kControl = 0xFFC0, kDefault = 0x1F80;  // without the sticky exception flags
  static Word read() { return _mm_getcsr(); }
  static void write(Word mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kControl = 0x07FF9F07, kDefault = 0;
  static Word read() {
    Word mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(Word mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
  using Word = uint32_t;
  static constexpr Word kControl = 0, kDefault = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif
  const Word saved_;
};

}  // namespace nl
