// tape.hpp: the flat record of what eager code would have executed; compared, replayed, or run op by op.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "eager.hpp"

namespace nl {

class Program;

// A small map from two integers to a number, emptied in O(1).
class PairMap {
 public:
  // The value kept for (a, b); `fresh` is stored and returned when there is none yet.
  uint32_t get_or_insert(uint64_t a, uint64_t b, uint32_t fresh);
  void clear();

 private:
  struct Entry {
    uint64_t a, b;
    uint32_t value, epoch;
  };
  std::vector<Entry> entries_ = std::vector<Entry>(64);
  uint32_t epoch_ = 1, used_ = 0;
  void grow();
};

// How one word of the tape describes an operand; a tensor's shape follows, and its strides unless they are row-major.
namespace tape_word {
constexpr uint64_t kTensor = 1, kScalar = 2;
inline uint64_t header(uint16_t op, int n_in, int n_out, int n_attr) {
  return op | uint64_t(n_in) << 16 | uint64_t(n_out) << 20 | uint64_t(n_attr) << 24;
}
inline uint64_t scalar(DType t, uint32_t index) { return kScalar | uint64_t(t) << 2 | uint64_t(index) << 11; }
inline uint64_t tensor(const TensorData& t, bool contiguous, uint32_t slot, int64_t offset_class) {
  return kTensor | uint64_t(t.dtype) << 2 | uint64_t(t.rank) << 6 | uint64_t(contiguous) << 10 | uint64_t(slot) << 11 |
         uint64_t(offset_class + 1) << 35;
}
}  // namespace tape_word

class Tape {
 public:
  struct Slot {
    Storage* storage;
    bool leaf;          // existed before the tape
    bool written;       // by a record of this tape
    bool made;          // a fresh storage whose contents are complete
    uint64_t checksum;  // of a leaf that others may write, when it was first used (with `checked`)
  };
  // One operand as read back from the words.
  struct Read {
    bool is_tensor;
    DType dtype;
    uint32_t index;        // slot or scalar number
    int64_t offset_class;  // -1: the view starts its storage
    int32_t rank;
    const uint64_t* shape;
    const uint64_t* strides;  // null: row-major
  };
  struct Record {
    uint16_t op;
    int n_in, n_out, n_attr;
    Read operand[kMaxOperands];  // inputs, then outputs
    const uint64_t* attr;
  };

  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  void record(uint16_t op, const Operand* in, int n_in, TensorData* out, int n_out, const int64_t* attr, int n_attr);
  // Takes in a storage without memory as a leaf: what a program will be given when it runs. Reading it cuts.
  void stand_in(Storage* s);
  // Appends the slots' descriptors to the words, after which `words` is the whole key, and returns its hash.
  uint64_t seal();
  // Decodes the record at word `at`, returns the position behind it.
  size_t read(size_t at, Record& r) const;

  // Executes everything op by op, as eager would have. On a failed check the rest is not executed, its results carry
  // the error, and the exception is thrown on; `failed_op()` is then the number of the record.
  void run();
  // Executes through a compiled program. `outputs[slot]`: what the program produces; the rest never gets memory.
  // After a failed check every result carries the error, until `forgive` says that it was made before.
  void replay(const Program& program, const std::vector<uint8_t>& outputs);
  void forgive(size_t slot);
  // Drops everything that was recorded; unmaterialised results will raise `reason` when read.
  void drop(const std::string& reason);
  // Says that everything recorded has run, however.
  void finish();
  // Forgets the records after they have run.
  void clear();

  // A fresh slot is live when anything but the tape still holds its storage.
  bool live(size_t slot) const;
  // A leaf whose memory others may write, and which they wrote since it was first used (-1: none; needs `checked`).
  int64_t foreign_write() const;
  // Some two leaves that do not share a storage lie over each other and one of them is written.
  bool leaves_overlap() const;
  // More than `bound` bytes of leaves are held by nothing but this tape.
  bool holds_dead_bytes(int64_t bound) const;

  std::vector<uint64_t> words;
  std::vector<int64_t> offsets;
  std::vector<uint64_t> scalars;
  std::vector<Slot> slots;
  size_t n_ops = 0;
  size_t body_words = 0;  // words before the slots' descriptors
  int64_t leaf_bytes = 0;
  bool checked = false;         // keep checksums of leaves that others may write
  bool wrote_exported = false;  // a record wrote memory that NumPy also sees: the caller must run the tape now
  std::thread::id owner;
  void* recorder = nullptr;  // the Python object that wants to know each record's line, or null

  int64_t failed_op() const { return failed_op_; }

 private:
  uint32_t id_;
  int64_t failed_op_ = -1;
  PairMap leaf_slots_, offset_classes_;

  uint32_t slot_of(Storage* s);
  uint32_t add_slot(Storage* s, bool leaf);
  void push_tensor(const TensorData& t, uint32_t slot);
  void poison(const std::exception_ptr& error);
  std::vector<uint32_t> last_uses() const;
  void prepare(const Read& r, View& v, std::vector<uint64_t>& cells) const;
};

// The tape that is open on this thread, or null.
Tape*& current_tape();
inline void set_current_tape(Tape* tape) { current_tape() = tape; }

// Throws when `s` cannot be used by an op right now: pending in another thread's tape, or never computed.
void check_usable(const Storage* s, const Tape* mine);

}  // namespace nl
