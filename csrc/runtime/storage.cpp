// storage.cpp: how storages get and give back their memory.
#include "storage.hpp"

#include <new>

#include "alloc.hpp"

namespace nl {
namespace {

constexpr int64_t kInlineBytes = 256;                               // one allocation instead of two for small results
constexpr int64_t kHeaderBytes = (sizeof(Storage) + 63) / 64 * 64;  // keeps inline data 64-byte aligned

}  // namespace

Storage* Storage::allocate(int64_t bytes) {
  const bool in_line = bytes <= kInlineBytes;
  char* memory = static_cast<char*>(nl_alloc(kHeaderBytes + (in_line ? kInlineBytes : 0)));
  Storage* s = new (memory) Storage;
  s->bytes = bytes;
  s->inline_data_ = in_line;
  if (in_line) {
    s->data = memory + kHeaderBytes;
    return s;
  }
  try {
    s->data = static_cast<char*>(nl_alloc(bytes));
  } catch (...) {
    s->release();
    throw;
  }
  return s;
}

Storage* Storage::deferred(int64_t bytes) {
  Storage* s = new (nl_alloc(kHeaderBytes)) Storage;
  s->bytes = bytes;
  return s;
}

Storage* Storage::borrow(void* data, int64_t bytes, uint8_t flags, void (*deleter)(void*), void* owner) {
  Storage* s = deferred(bytes);
  s->data = static_cast<char*>(data);
  s->flags = flags;
  s->deleter = deleter;
  s->owner = owner;
  return s;
}

void Storage::materialize() {
  if (data == nullptr) data = static_cast<char*>(nl_alloc(bytes));
}

void Storage::destroy() {
  if (deleter != nullptr) {
    deleter(owner);
  } else if (data != nullptr && !inline_data_) {
    nl_free(data, bytes);
  }
  const int64_t block = kHeaderBytes + (inline_data_ ? kInlineBytes : 0);
  this->~Storage();
  nl_free(this, block);
}

}  // namespace nl
