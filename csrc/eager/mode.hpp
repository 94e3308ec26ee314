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

}  // namespace nl
