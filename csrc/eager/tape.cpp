// tape.cpp: recording, sealing and running tapes.
#include "tape.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "../base/errors.hpp"
#include "../runtime/program.hpp"

namespace nl {

// ---- PairMap ---------------------------------------------------------------------------------------------------

namespace {
uint64_t mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15ull;
  return x ^ (x >> 29);
}
}  // namespace

uint32_t PairMap::get_or_insert(uint64_t a, uint64_t b, uint32_t fresh) {
  if (used_ * 2 >= entries_.size()) grow();
  const size_t mask = entries_.size() - 1;
  for (size_t i = mix(a ^ mix(b)) & mask;; i = (i + 1) & mask) {
    Entry& e = entries_[i];
    if (e.epoch != epoch_) {
      e = {a, b, fresh, epoch_};
      ++used_;
      return fresh;
    }
    if (e.a == a && e.b == b) return e.value;
  }
}

void PairMap::grow() {
  std::vector<Entry> old(entries_.size() * 2);
  old.swap(entries_);
  const uint32_t kept = epoch_;
  used_ = 0;
  for (const Entry& e : old)
    if (e.epoch == kept) get_or_insert(e.a, e.b, e.value);
}

void PairMap::clear() {
  used_ = 0;
  if (++epoch_ == 0) {  // after 2^32 clears stale entries could look current
    std::fill(entries_.begin(), entries_.end(), Entry{});
    epoch_ = 1;
  }
}

// ---- recording -------------------------------------------------------------------------------------------------

Tape*& current_tape() {
  static thread_local Tape* tape = nullptr;
  return tape;
}

void check_usable(const Storage* s, const Tape* mine) {
  const Tape* holder = s->pending.load(std::memory_order_acquire);
  if (holder != nullptr && holder != mine)
    throw TraceError(
        "a tensor is used that is still being traced by another thread; end that trace or read the tensor "
        "there first");
  if (s->error != nullptr) std::rethrow_exception(s->error);
}

Tape::Tape() : owner(std::this_thread::get_id()) {
  static std::atomic<uint32_t> next{1};
  id_ = next.fetch_add(1);
}

Tape::~Tape() { drop("the trace that recorded it was discarded"); }

// Whether others than our tensors may write the memory.
static bool lent(const Storage* s) { return s->exports.load() > 0 || (s->flags & kForeign); }

static uint64_t checksum(const Storage* s) {
  uint64_t hash = 0;
  for (int64_t i = 0; i < s->bytes; ++i) hash = mix(hash ^ uint8_t(s->data[i])) + 1;
  return hash;
}

int64_t Tape::foreign_write() const {
  for (size_t i = 0; i < slots.size(); ++i)
    if (slots[i].leaf && checked && lent(slots[i].storage) && checksum(slots[i].storage) != slots[i].checksum)
      return int64_t(i);
  return -1;
}

uint32_t Tape::add_slot(Storage* s, bool leaf) {
  const uint32_t slot = uint32_t(slots.size());
  slots.push_back({s, leaf, false, false, 0});
  if (leaf) {
    s->retain();
    leaf_bytes += s->bytes;
    if (checked && lent(s)) slots.back().checksum = checksum(s);
  }
  s->mark.store(uint64_t(id_) << 32 | slot, std::memory_order_relaxed);
  return slot;
}

uint32_t Tape::slot_of(Storage* s) {
  const uint64_t mark = s->mark.load(std::memory_order_relaxed);
  if (mark >> 32 == id_) return uint32_t(mark);
  check_usable(s, this);
  const uint32_t fresh = uint32_t(slots.size());
  const uint32_t slot = leaf_slots_.get_or_insert(uint64_t(uintptr_t(s)), 0, fresh);
  return slot == fresh ? add_slot(s, true) : slot;
}

void Tape::stand_in(Storage* s) {
  s->pending.store(this, std::memory_order_release);
  slot_of(s);
}

// Whether the view necessarily starts its storage: then its offset is a fact, not a run-time number.
static bool covers_storage(const TensorData& t) {
  if (t.offset != 0) return false;
  int64_t lo, hi;
  extent(t, &lo, &hi);
  return lo == 0 && nbytes(t.dtype, hi) == t.storage->bytes;
}

void Tape::push_tensor(const TensorData& t, uint32_t slot) {
  int64_t offset_class = -1;
  if (!covers_storage(t)) {
    const uint32_t fresh = uint32_t(offsets.size());
    offset_class = offset_classes_.get_or_insert(slot, uint64_t(t.offset), fresh);
    if (offset_class == fresh) offsets.push_back(t.offset);
  }
  const bool contiguous = is_contiguous(t);
  words.push_back(tape_word::tensor(t, contiguous, slot, offset_class));
  words.insert(words.end(), t.shape, t.shape + t.rank);
  if (!contiguous) words.insert(words.end(), t.strides, t.strides + t.rank);
}

void Tape::record(uint16_t op, const Operand* in, int n_in, TensorData* out, int n_out, const int64_t* attr,
                  int n_attr) {
  words.push_back(tape_word::header(op, n_in, n_out, n_attr));
  const size_t start = words.size() - 1;
  try {
    for (int i = 0; i < n_in; ++i) {
      if (in[i].tensor != nullptr) {
        push_tensor(*in[i].tensor, slot_of(in[i].tensor->storage));
      } else {
        words.push_back(tape_word::scalar(in[i].dtype, uint32_t(scalars.size())));
        scalars.push_back(in[i].bits);
      }
    }
    for (int i = 0; i < n_out; ++i) {
      TensorData& t = out[i];
      uint32_t slot;
      if (t.storage == nullptr) {
        t.storage = Storage::deferred(nbytes(t.dtype, numel(t)));
        t.storage->retain();  // one reference for the caller, one for the tape
        slot = add_slot(t.storage, false);
      } else {
        slot = slot_of(t.storage);
        ++t.storage->version;
        wrote_exported |= lent(t.storage);
      }
      slots[slot].written = true;
      t.storage->pending.store(this, std::memory_order_release);
      push_tensor(t, slot);
    }
  } catch (...) {
    words.resize(start);
    throw;
  }
  words.insert(words.end(), attr, attr + n_attr);
  ++n_ops;
}

uint64_t Tape::seal() {
  body_words = words.size();
  for (const Slot& s : slots)
    words.push_back(uint64_t(s.storage->bytes) << 9 | uint64_t(s.leaf) << 8 | s.storage->device);
  uint64_t hash = words.size();
  for (uint64_t w : words) hash = (hash ^ w) * 0x9E3779B97F4A7C15ull + (hash >> 31);
  return hash ^ (hash >> 32);
}

// ---- reading back ----------------------------------------------------------------------------------------------

size_t Tape::read(size_t at, Record& r) const {
  const uint64_t head = words[at++];
  r.op = uint16_t(head);
  r.n_in = head >> 16 & 15;
  r.n_out = head >> 20 & 15;
  r.n_attr = head >> 24 & 255;
  for (int i = 0; i < r.n_in + r.n_out; ++i) {
    Read& o = r.operand[i];
    const uint64_t w = words[at++];
    o.is_tensor = (w & 3) == tape_word::kTensor;
    o.dtype = DType(w >> 2 & 15);
    o.index = uint32_t(w >> 11 & 0xFFFFFF);
    o.rank = 0;
    if (!o.is_tensor) continue;
    o.rank = w >> 6 & 15;
    o.offset_class = int64_t(w >> 35) - 1;
    o.shape = &words[at];
    at += o.rank;
    o.strides = w >> 10 & 1 ? nullptr : &words[at];
    if (o.strides != nullptr) at += o.rank;
  }
  r.attr = words.data() + at;
  return at + r.n_attr;
}

void Tape::prepare(const Read& o, View& v, std::vector<uint64_t>& cells) const {
  v.dtype = o.dtype;
  v.rank = o.rank;
  if (!o.is_tensor) {
    v.data = reinterpret_cast<char*>(&cells[o.index]);
    return;
  }
  int64_t stride = 1;
  for (int d = o.rank - 1; d >= 0; --d) {
    v.shape[d] = int64_t(o.shape[d]);
    v.strides[d] = o.strides != nullptr ? int64_t(o.strides[d]) : stride;
    stride *= v.shape[d];
  }
  const int64_t offset = o.offset_class < 0 ? 0 : offsets[o.offset_class];
  v.data = slots[o.index].storage->data + offset * itemsize(o.dtype);
}

// For every slot the number of the last record that names it.
std::vector<uint32_t> Tape::last_uses() const {
  std::vector<uint32_t> last(slots.size(), 0);
  Record r;
  size_t at = 0;
  for (uint32_t n = 0; n < n_ops; ++n) {
    at = read(at, r);
    for (int i = 0; i < r.n_in + r.n_out; ++i)
      if (r.operand[i].is_tensor) last[r.operand[i].index] = n;
  }
  return last;
}

// ---- running ---------------------------------------------------------------------------------------------------

void Tape::run() {
  const std::vector<uint32_t> last = last_uses();
  Record r;
  View views[kMaxOperands];
  size_t at = 0;
  failed_op_ = -1;
  for (uint32_t n = 0; n < n_ops; ++n) {
    try {
      at = read(at, r);
      for (int i = r.n_in; i < r.n_in + r.n_out; ++i) slots[r.operand[i].index].storage->materialize();
      for (int i = 0; i < r.n_in + r.n_out; ++i) prepare(r.operand[i], views[i], scalars);
      int64_t fault[3] = {0, 0, 0};
      run_call({views, views + r.n_in, reinterpret_cast<const int64_t*>(r.attr), fault, nullptr, r.op, uint8_t(r.n_in),
                uint8_t(r.n_out), uint8_t(r.n_attr)});
    } catch (...) {
      failed_op_ = n;
      poison(std::current_exception());
      throw;
    }
    for (int i = 0; i < r.n_in + r.n_out; ++i) {
      if (!r.operand[i].is_tensor) continue;
      Slot& s = slots[r.operand[i].index];
      s.made |= i >= r.n_in;
      if (s.storage != nullptr && last[r.operand[i].index] == n && s.storage->refs.load() == 1) {
        s.storage->release();  // an intermediate that nothing reads any more
        s.storage = nullptr;
      }
    }
  }
  finish();
}

void Tape::replay(const Program& program, const std::vector<uint8_t>& outputs) {
  std::vector<char*>& pointers = Program::slot_pointers();
  pointers.assign(slots.size(), nullptr);
  try {
    for (size_t i = 0; i < slots.size(); ++i) {
      if (!slots[i].leaf && outputs[i]) slots[i].storage->materialize();
      pointers[i] = slots[i].storage->data;
    }
    failed_op_ = -1;
    program.run(pointers.data(), offsets.data(), scalars.data());
  } catch (...) {
    failed_op_ = Program::failed_op();
    poison(std::current_exception());
    throw;
  }
  finish();
}

void Tape::forgive(size_t slot) { slots[slot].storage->error = nullptr; }

bool Tape::live(size_t slot) const {
  const Storage* s = slots[slot].storage;
  return s != nullptr && s->refs.load(std::memory_order_relaxed) > 1;
}

void Tape::finish() {
  for (Slot& s : slots)
    if (s.storage != nullptr) s.storage->pending.store(nullptr, std::memory_order_release);
}

void Tape::poison(const std::exception_ptr& error) {
  for (Slot& s : slots) {
    if (s.storage == nullptr) continue;
    if (!s.made && (!s.leaf || s.storage->data == nullptr)) s.storage->error = error;
    s.storage->pending.store(nullptr, std::memory_order_release);
  }
}

void Tape::drop(const std::string& reason) {
  poison(std::make_exception_ptr(TraceError(reason)));
  clear();
}

void Tape::clear() {
  for (Slot& s : slots) {
    if (s.storage == nullptr) continue;
    s.storage->mark.store(0, std::memory_order_relaxed);
    s.storage->release();
  }
  slots.clear();
  words.clear();
  offsets.clear();
  scalars.clear();
  leaf_slots_.clear();
  offset_classes_.clear();
  n_ops = 0;
  body_words = 0;
  leaf_bytes = 0;
  wrote_exported = false;
}

bool Tape::leaves_overlap() const {
  struct Range {
    const char *begin, *end;
    bool written;
  };
  std::vector<Range> ranges;
  bool any_written = false;
  for (const Slot& s : slots) {
    if (!s.leaf || !(s.storage->flags & kForeign) || s.storage->bytes == 0) continue;
    ranges.push_back({s.storage->data, s.storage->data + s.storage->bytes, s.written});
    any_written |= s.written;
  }
  if (!any_written) return false;
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].begin < ranges[i - 1].end) return true;
  return false;
}

bool Tape::holds_dead_bytes(int64_t bound) const {
  int64_t dead = 0;
  for (const Slot& s : slots)
    if (s.leaf && s.storage->refs.load(std::memory_order_relaxed) == 1) dead += s.storage->bytes;
  return dead > bound;
}

}  // namespace nl
