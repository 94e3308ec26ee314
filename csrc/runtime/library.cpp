// library.cpp: dlopen of anonymous files.
#include "library.hpp"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace nl {
namespace {

void* open_or_throw(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  const char* reason = dlerror();
  throw std::runtime_error(std::string("load_library: ") + (reason != nullptr ? reason : "unknown reason"));
}

// An anonymous file, closed again when this goes; the mapping of a loaded library outlives it.
struct MemoryFile {
  const int fd = memfd_create("neurlang", MFD_CLOEXEC);
  MemoryFile() {
    if (fd < 0) throw std::runtime_error(std::string("load_library: memfd_create: ") + std::strerror(errno));
  }
  ~MemoryFile() { close(fd); }

  void write(const std::string& bytes) const {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw std::runtime_error(std::string("load_library: write: ") + std::strerror(errno));
      done += size_t(n);
    }
  }
};

// The loader takes two files for the same if their paths are spelled alike, even if the number of a closed descriptor
// came back with other contents. So every load spells its path differently: `number` in binary, as /. and //.
std::string unique_path(int fd) {
  static std::atomic<uint32_t> number{1};
  std::string path = "/proc/self/fd";
  for (uint32_t bits = number.fetch_add(1); bits != 0; bits >>= 1) path += bits & 1 ? "/." : "//";
  return path + "/" + std::to_string(fd);
}

}  // namespace

Library Library::from_bytes(const std::string& elf) {
  const MemoryFile file;
  file.write(elf);
  return Library(open_or_throw(unique_path(file.fd)));
}

Library Library::from_path(const std::string& path) { return Library(open_or_throw(path)); }

Library::~Library() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* Library::symbol(const std::string& name) const { return dlsym(handle_, name.c_str()); }

}  // namespace nl
