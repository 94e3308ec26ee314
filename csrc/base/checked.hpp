// checked.hpp: 64-bit integers for sizes: once an operation overflows, the number stays invalid.
#pragma once
#include <stdint.h>

namespace nl {

class Checked {
 public:
  constexpr Checked(int64_t value) : value_(value), valid_(true) {}  // NOLINT: implicit, so that 2 * n reads as usual

  constexpr bool valid() const { return valid_; }
  constexpr int64_t value() const { return value_; }  // meaningful only when valid()
  constexpr bool exceeds(int64_t bound) const { return !valid_ || value_ > bound; }

  friend constexpr Checked operator+(Checked a, Checked b) {
    Checked r = joined(a, b);
    r.valid_ &= !__builtin_add_overflow(a.value_, b.value_, &r.value_);
    return r;
  }
  friend constexpr Checked operator-(Checked a, Checked b) {
    Checked r = joined(a, b);
    r.valid_ &= !__builtin_sub_overflow(a.value_, b.value_, &r.value_);
    return r;
  }
  friend constexpr Checked operator*(Checked a, Checked b) {
    Checked r = joined(a, b);
    r.valid_ &= !__builtin_mul_overflow(a.value_, b.value_, &r.value_);
    return r;
  }

 private:
  int64_t value_;
  bool valid_;

  static constexpr Checked joined(Checked a, Checked b) {
    Checked r(0);
    r.valid_ = a.valid_ && b.valid_;
    return r;
  }
};

}  // namespace nl
