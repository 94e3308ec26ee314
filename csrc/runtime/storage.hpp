// storage.hpp: bytes with an owner: the memory behind tensors, its version, its loans and its place in a tape.
#pragma once
#include <stdint.h>

#include <atomic>
#include <exception>

namespace nl {

class Tape;

enum StorageFlag : uint8_t {
  kReadOnly = 1,  // mapped files, read-only NumPy arrays
  kForeign = 2,   // memory that somebody else owns (NumPy): other storages may overlap it
};

// Created with one reference. Memory may be absent (`data == nullptr`) while the storage is only recorded in a tape.
struct Storage {
  std::atomic<int64_t> refs{1};
  char* data = nullptr;
  int64_t bytes = 0;
  std::atomic<Tape*> pending{nullptr};  // the tape holding writes to this storage that have not run
  std::atomic<uint64_t> mark{0};        // (tape id << 32 | slot): a hint; another thread's tape may overwrite it
  std::atomic<int32_t> exports{0};      // live NumPy arrays and buffers looking at this memory
  std::atomic<uint32_t> loans{0};       // how many there ever were: each may have written unseen
  uint32_t version = 0;                 // in-place writes so far
  uint8_t flags = 0;
  uint8_t device = 0;        // 0: CPU
  std::exception_ptr error;  // why this storage never got its contents; thrown to whoever reads it
  void (*deleter)(void*) = nullptr;
  void* owner = nullptr;  // argument of `deleter`

  // Memory from the caching allocator; small blocks lie directly behind the header.
  static Storage* allocate(int64_t bytes);
  // No memory yet: a result that a tape will produce.
  static Storage* deferred(int64_t bytes);
  // Memory of somebody else; `deleter(owner)` is called once when the last reference goes.
  static Storage* borrow(void* data, int64_t bytes, uint8_t flags, void (*deleter)(void*), void* owner);

  // Whether the contents are here: no tape owes them, and they were not lost to a failed check.
  bool readable() const { return data != nullptr && pending.load() == nullptr && error == nullptr; }

  // Gives a deferred storage its memory.
  void materialize();

  void retain() { refs.fetch_add(1, std::memory_order_relaxed); }
  // Who holds the only reference needs no atomic subtraction: nobody else can take another one from it.
  void release() {
    if (refs.load(std::memory_order_acquire) == 1 || refs.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }

 private:
  bool inline_data_ = false;
  void destroy();
};

}  // namespace nl
