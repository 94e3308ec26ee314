// player.cpp: plays recorded calls from a file, without Python: the kernels of another processor, under emulation.
//
//   player CALLS RESULTS
//
// CALLS is little-endian 64-bit words: the op table's fingerprint, the number of storages and the bytes of each, the
// number of calls and for each the op, the numbers of inputs, outputs and attributes, the attributes, and the operands:
// -1, dtype, bits of a scalar; or storage, dtype, rank, offset, shape, strides of a view. The storages' bytes follow,
// each padded to whole words. RESULTS is those bytes after the last call.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "../eager/eager.hpp"
#include "../runtime/cpu.hpp"
#include "ops.gen.hpp"

namespace nl {
namespace {

using Bytes = std::vector<char>;

Bytes read_file(const char* path) {
  FILE* file = std::fopen(path, "rb");
  if (file == nullptr) throw std::runtime_error(std::string("cannot read ") + path);
  Bytes bytes;
  char part[1 << 16];
  while (const size_t n = std::fread(part, 1, sizeof part, file)) bytes.insert(bytes.end(), part, part + n);
  std::fclose(file);
  return bytes;
}

int64_t padded(int64_t bytes) { return (bytes + 7) / 8 * 8; }

class Words {
 public:
  explicit Words(const Bytes& bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  int64_t next() {
    int64_t word;
    copy(&word, sizeof word);
    return word;
  }
  void copy(void* to, int64_t bytes) {
    if (bytes < 0 || bytes > end_ - at_) throw std::runtime_error("the file of calls ends too early");
    __builtin_memcpy(to, at_, bytes);
    at_ += bytes;
  }

 private:
  const char *at_, *end_;
};

struct Recorded {
  uint16_t op;
  std::vector<int64_t> attrs;
  std::vector<View> views;  // inputs, then outputs; `data` is filled in when all storages are there
  std::vector<int64_t> storage, offset;
  std::vector<uint64_t> bits;
  int n_in;
};

View read_view(Words& words, Recorded& call) {
  View v = {};
  const int64_t storage = words.next();
  v.dtype = DType(words.next());
  call.storage.push_back(storage);
  if (storage < 0) {
    call.bits.push_back(words.next());
    call.offset.push_back(0);
    return v;
  }
  v.rank = int32_t(words.next());
  if (v.rank < 0 || v.rank > kMaxRank) throw std::runtime_error("a view has too many axes");
  call.bits.push_back(0);
  call.offset.push_back(words.next());
  for (int d = 0; d < v.rank; ++d) v.shape[d] = words.next();
  for (int d = 0; d < v.rank; ++d) v.strides[d] = words.next();
  return v;
}

Recorded read_call(Words& words) {
  Recorded call;
  call.op = uint16_t(words.next());
  call.n_in = int(words.next());
  const int64_t n_out = words.next();
  call.attrs.resize(words.next());
  for (int64_t& attr : call.attrs) attr = words.next();
  for (int64_t i = 0; i < call.n_in + n_out; ++i) call.views.push_back(read_view(words, call));
  return call;
}

void play(Recorded& call, const std::vector<char*>& storages) {
  for (size_t i = 0; i < call.views.size(); ++i) {
    View& v = call.views[i];
    v.data = call.storage[i] < 0 ? reinterpret_cast<char*>(&call.bits[i])
                                 : storages.at(call.storage[i]) + call.offset[i] * itemsize(v.dtype);
  }
  int64_t fault[3] = {0, 0, 0};
  const size_t n_out = call.views.size() - call.n_in;
  run_call({call.views.data(), call.views.data() + call.n_in, call.attrs.data(), fault, nullptr, call.op,
            uint8_t(call.n_in), uint8_t(n_out), uint8_t(call.attrs.size())});
}

void run(const char* calls_path, const char* results_path) {
  const Bytes file = read_file(calls_path);
  Words words(file);
  if (uint64_t(words.next()) != std::strtoull(kTableFingerprint, nullptr, 16))
    throw std::runtime_error("the calls are of another op table");
  std::vector<int64_t> sizes(words.next());
  for (int64_t& size : sizes) size = words.next();
  std::vector<Recorded> calls(words.next());
  for (Recorded& call : calls) call = read_call(words);
  std::vector<char*> storages;
  for (const int64_t size : sizes) {
    storages.push_back(static_cast<char*>(std::aligned_alloc(64, (size + 127) / 64 * 64)));
    words.copy(storages.back(), padded(size));
  }
  for (Recorded& call : calls) play(call, storages);
  FILE* results = std::fopen(results_path, "wb");
  if (results == nullptr) throw std::runtime_error(std::string("cannot write ") + results_path);
  for (size_t i = 0; i < sizes.size(); ++i) std::fwrite(storages[i], 1, padded(sizes[i]), results);
  if (std::fclose(results) != 0) throw std::runtime_error(std::string("cannot write ") + results_path);
}

}  // namespace
}  // namespace nl

int main(int n, char** arguments) {
  try {
    if (n != 3) throw std::runtime_error("usage: player CALLS RESULTS");
    nl::run(arguments[1], arguments[2]);
    std::printf("%s\n", nl::isa_name(nl::isa_level()));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "player: %s\n", error.what());
    return 1;
  }
}
