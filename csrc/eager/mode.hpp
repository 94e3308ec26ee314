// mode.hpp: per-thread switches of the eager path.
#pragma once

namespace nl {

inline bool& grad_mode() {
  static thread_local bool on = true;
  return on;
}
inline bool grad_enabled() { return grad_mode(); }
inline bool set_grad_enabled(bool on) {
  const bool was = grad_mode();
  grad_mode() = on;
  return was;
}

// Results a way of the largest Winograd tile that convolutions may have (the attribute `tile` of ops/table.py).
inline int& conv_tile() {
  static thread_local int tile = 2;
  return tile;
}
inline int set_conv_tile(int tile) {
  const int was = conv_tile();
  conv_tile() = tile;
  return was;
}

}  // namespace nl
