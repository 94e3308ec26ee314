// library.hpp: shared libraries made at run time, loaded from memory so that what was verified is what runs.
#pragma once
#include <string>

namespace nl {

class Library {
 public:
  // From the bytes of an ELF file. Throws std::runtime_error with the loader's reason.
  static Library from_bytes(const std::string& elf);
  static Library from_path(const std::string& path);
  ~Library();
  Library(Library&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // The address of an exported symbol, or null.
  void* symbol(const std::string& name) const;

 private:
  explicit Library(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace nl
