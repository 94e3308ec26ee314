// program.cpp: the replay loop.
#include "program.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../base/errors.hpp"
#include "alloc.hpp"
#include "float_mode.hpp"
#include "interrupt.hpp"
#include "ops.gen.hpp"

namespace nl {
namespace {

constexpr int kPollEvery = 64;  // steps; those that take long look for signals themselves

thread_local int64_t failed_record = -1, failed_step_number = -1;

size_t count_refs(const Step& step) {
  if (const auto* g = std::get_if<GeneratedStep>(&step.what)) return g->refs.size();
  const auto& s = std::get<NativeStep>(step.what);
  size_t n = s.epilogue_refs.size();
  for (const MadeInput& m : s.made) n += m.refs.size();
  return n;
}

int64_t count_rows(const Step& step) {
  const auto* s = std::get_if<NativeStep>(&step.what);
  return s != nullptr && s->on_rows != nullptr ? s->rows.matrices * s->rows.rows : 0;
}

char* aligned_copy(const std::string& bytes) {
  char* p = static_cast<char*>(nl_alloc(int64_t(bytes.size())));
  std::memcpy(p, bytes.data(), bytes.size());
  return p;
}

[[noreturn]] void refuse(const char* what) { throw std::invalid_argument(std::string("Program: ") + what); }

int64_t rounded(int64_t arena_bytes) {
  if (arena_bytes < 0 || arena_bytes > (int64_t(1) << 60)) refuse("the arena's size makes no sense");
  return (arena_bytes + 63) / 64 * 64;
}

// What nl_parallel_for and a kernel's hooks hand back to the generated code.
template <class Fn>
struct Bound {
  Fn fn;
  void* const* ptr;
  const int64_t* ints;
};

void call_generated(void* ctx, int64_t begin, int64_t end) {
  const auto* b = static_cast<const Bound<GeneratedFn>*>(ctx);
  b->fn(b->ptr, b->ints, begin, end);
}

void call_epilogue(void* ctx, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const auto* b = static_cast<const Bound<EpilogueFn>*>(ctx);
  b->fn(b->ptr, b->ints, batch, i0, i1, j0, j1);
}

void call_prologue(void* ctx, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1, void* to, int64_t pitch) {
  const auto* b = static_cast<const Bound<PrologueFn>*>(ctx);
  b->fn(b->ptr, b->ints, batch, i0, i1, j0, j1, to, pitch);
}

// Runs a generated kernel on the rows of a contraction's result: at once where a rectangle has them whole, while they
// are in cache, and on all threads behind the contraction where they come in pieces.
class FinishedRows {
 public:
  // `done`: a byte for each row.
  FinishedRows(const NativeStep& step, void* const* ptr, uint8_t* done)
      : step_(step), ptr_(ptr), total_(step.rows.matrices * step.rows.rows), done_(done) {
    std::memset(done, 0, size_t(total_));
  }

  Epilogue epilogue() { return {rectangle, this, step_.rows.result >= 0 ? take : nullptr, true}; }

  void run_rest() {
    if (std::memchr(done_, 0, size_t(total_)) != nullptr) nl_parallel_for(total_, step_.rows.grain, run_left, this);
  }

 private:
  const NativeStep& step_;
  void* const* const ptr_;
  const int64_t total_;
  uint8_t* const done_;

  static void rectangle(void* ctx, int64_t matrix, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const auto& self = *static_cast<const FinishedRows*>(ctx);
    const RowLoop& loop = self.step_.rows;
    const int64_t first = matrix * loop.rows;
    if (j0 == 0 && j1 == loop.columns) self.run(self.ptr_, first + i0, first + i1);
  }

  // The kernel finds the rows where they would lie if all of the result began there.
  static void take(void* ctx, int64_t i0, int64_t i1, const void* rows) {
    const auto& self = *static_cast<const FinishedRows*>(ctx);
    const RowLoop& loop = self.step_.rows;
    void* ptr[Program::kMaxTaken];
    std::copy_n(self.ptr_, self.step_.epilogue_refs.size(), ptr);
    const int64_t row_bytes = loop.columns * self.step_.epilogue_refs[loop.result].itemsize;
    ptr[loop.result] = reinterpret_cast<void*>(reinterpret_cast<intptr_t>(rows) - i0 * row_bytes);
    self.run(ptr, i0, i1);
  }

  void run(void* const* ptr, int64_t begin, int64_t end) const {
    step_.on_rows(ptr, step_.epilogue_ints.data(), begin * step_.rows.units, end * step_.rows.units);
    std::memset(done_ + begin, 1, size_t(end - begin));
  }

  static void run_left(void* ctx, int64_t begin, int64_t end) {
    const auto& self = *static_cast<const FinishedRows*>(ctx);
    const uint8_t *at = self.done_ + begin, *stop = self.done_ + end;
    while ((at = std::find(at, stop, 0)) != stop) {
      const uint8_t* next = std::find(at, stop, 1);
      self.run(self.ptr_, at - self.done_, next - self.done_);
      at = next;
    }
  }
};

}  // namespace

extern "C" void* nl_keep(Kept* kept, int64_t bytes) {
  if (kept->bytes < bytes) {
    char* grown = static_cast<char*>(nl_alloc(bytes));
    if (kept->data != nullptr) nl_free(kept->data, kept->bytes);
    *kept = {grown, bytes, false};
  }
  return kept->data;
}

// ---- one run ----

// One run at a time uses what is kept, and forgets it when it was made of other contents.
struct Program::Keeping {
  const Program& program;
  const bool active;

  Keeping(const Program& p, uint64_t version)
      : program(p), active(version != 0 && !p.keeping_.exchange(true, std::memory_order_acquire)) {
    if (!active || version == p.kept_version_) return;
    for (const Step& step : p.steps_)
      if (const auto* s = std::get_if<NativeStep>(&step.what)) s->kept.ready = false;
    p.kept_version_ = version;
  }
  ~Keeping() {
    if (active) program.keeping_.store(false, std::memory_order_release);
  }
};

struct Program::Frame {
  char* const* slots;
  const int64_t* offsets;
  const uint64_t* scalars;
  char* arena;
  char* const* constants;
  void** pointers;
  uint8_t* finished;
  bool keeps;

  char* base(const Ref& r) const {
    switch (r.kind) {
      case Ref::Kind::slot: return slots[r.index];
      case Ref::Kind::arena: return arena;
      case Ref::Kind::scalar: return reinterpret_cast<char*>(const_cast<uint64_t*>(scalars + r.index));
      case Ref::Kind::constant: return constants[r.index];
    }
    return nullptr;
  }

  char* resolve(const Ref& r) const {
    const int64_t offset = r.offset_class >= 0 ? offsets[r.offset_class] * r.itemsize : 0;
    return base(r) + r.byte_offset + offset;
  }

  void** resolve(const std::vector<Ref>& refs, void** to) const {
    std::transform(refs.begin(), refs.end(), to, [&](const Ref& r) { return resolve(r); });
    return to;
  }

  void run(const GeneratedStep& s) const {
    Bound<GeneratedFn> bound{s.fn, resolve(s.refs, pointers), s.ints.data()};
    nl_parallel_for(s.range, s.grain, call_generated, &bound);
  }

  void run(const NativeStep& s) const {
    void* const* ptr = resolve(s.epilogue_refs, pointers);
    if (s.on_rows != nullptr) {
      FinishedRows rows(s, ptr, finished);
      const Epilogue epilogue = rows.epilogue();
      call(s, &epilogue);
      rows.run_rest();
    } else {
      Bound<EpilogueFn> bound{s.on_tiles, ptr, s.epilogue_ints.data()};
      const Epilogue epilogue{call_epilogue, &bound, nullptr, false};
      call(s, s.on_tiles != nullptr ? &epilogue : nullptr);
    }
  }

  void call(const NativeStep& s, const Epilogue* epilogue) const {
    View views[kMaxOperands];
    for (size_t i = 0; i < s.views.size(); ++i) {
      views[i] = s.views[i];
      views[i].data = resolve(s.refs[i]);
    }
    Bound<PrologueFn> makers[kMaxOperands];
    Prologue prologues[kMaxOperands];
    if (!s.made.empty()) bind(s, makers, prologues);
    int64_t fault[3] = {0, 0, 0};
    const Call call{views,
                    views + s.n_in,
                    s.attrs.data(),
                    fault,
                    epilogue,
                    s.op,
                    uint8_t(s.n_in),
                    uint8_t(int(s.views.size()) - s.n_in),
                    uint8_t(s.attrs.size()),
                    keeps && s.fixed ? &s.kept : nullptr,
                    s.made.empty() ? nullptr : prologues};
    if (s.fn(call) == kIndexError) throw index_error(op_name(s.asked), fault);
  }

  // The prologues of a step's inputs; their pointers lie behind the epilogue's.
  void bind(const NativeStep& s, Bound<PrologueFn>* makers, Prologue* prologues) const {
    std::fill_n(prologues, s.n_in, Prologue{});
    void** to = pointers + s.epilogue_refs.size();
    for (const MadeInput& m : s.made) {
      makers[m.input] = {m.fn, resolve(m.refs, to), m.ints.data()};
      prologues[m.input] = {call_prologue, makers + m.input};
      to += m.refs.size();
    }
  }
};

void Program::run(char* const* slots, const int64_t* offsets, const uint64_t* scalars, uint64_t version) const {
  const Keeping keeping(*this, version);
  const DefaultFloatMode mode;
  char* arena = static_cast<char*>(nl_arena(arena_bytes_ + pointer_bytes_ + row_bytes_));
  char* const pointers = arena + arena_bytes_;
  const Frame frame{slots,
                    offsets,
                    scalars,
                    arena,
                    constants_.data(),
                    reinterpret_cast<void**>(pointers),
                    reinterpret_cast<uint8_t*>(pointers + pointer_bytes_),
                    keeping.active};
  failed_record = failed_step_number = -1;
  for (const Step& step : steps_) {
    try {
      std::visit([&](const auto& s) { frame.run(s); }, step.what);
      if ((&step - steps_.data()) % kPollEvery == kPollEvery - 1) poll_interrupt();
    } catch (...) {
      failed_record = step.record;
      failed_step_number = &step - steps_.data();
      throw;
    }
  }
}

int64_t Program::failed_op() { return failed_record; }
int64_t Program::failed_step() { return failed_step_number; }

std::vector<char*>& Program::slot_pointers() {
  static thread_local std::vector<char*> pointers;
  return pointers;
}

// ---- construction ----

Program::Program(uint32_t n_slots, int64_t arena_bytes, const std::vector<std::string>& constants,
                 std::vector<Step> steps)
    : arena_bytes_(rounded(arena_bytes)), steps_(std::move(steps)) {
  for (const Step& step : steps_) {
    pointer_bytes_ = std::max(pointer_bytes_, int64_t(count_refs(step) * sizeof(void*)));
    row_bytes_ = std::max(row_bytes_, count_rows(step));
  }
  for (const std::string& c : constants) constant_bytes_.push_back(int64_t(c.size()));
  for (const Step& step : steps_) check(step, n_slots);
  for (const std::string& c : constants) constants_.push_back(aligned_copy(c));
}

Program::~Program() {
  for (size_t i = 0; i < constants_.size(); ++i) nl_free(constants_[i], constant_bytes_[i]);
  for (const Step& step : steps_) {
    const auto* s = std::get_if<NativeStep>(&step.what);
    if (s != nullptr && s->kept.data != nullptr) nl_free(s->kept.data, s->kept.bytes);
  }
}

void Program::fix(const std::vector<uint8_t>& slots) {
  for (Step& step : steps_) {
    auto* s = std::get_if<NativeStep>(&step.what);
    if (s == nullptr || s->n_in < 2) continue;
    const auto is_fixed = [&](const Ref& r) {
      if (r.kind == Ref::Kind::slot) return r.index < slots.size() && slots[r.index] != 0;
      return r.kind != Ref::Kind::arena;  // whose runs fix slots have the same scalars in all of them
    };
    s->fixed = true;
    for (int i = 1; i < s->n_in; ++i) {
      const auto m = std::find_if(s->made.begin(), s->made.end(), [&](const MadeInput& x) { return x.input == i; });
      s->fixed &= m == s->made.end() ? is_fixed(s->refs[i]) : std::all_of(m->refs.begin(), m->refs.end(), is_fixed);
    }
  }
}

void Program::check(const Ref& r, uint32_t n_slots) const {
  if (r.kind == Ref::Kind::slot && r.index >= n_slots) refuse("a reference names a slot that does not exist");
  if (r.kind == Ref::Kind::constant && r.index >= constant_bytes_.size())
    refuse("a reference names a constant that does not exist");
  if (r.kind == Ref::Kind::arena && (r.byte_offset < 0 || r.byte_offset > arena_bytes_))
    refuse("a reference points outside of the arena");
}

void Program::check(const Step& step, uint32_t n_slots) const {
  if (const auto* g = std::get_if<GeneratedStep>(&step.what)) {
    if (g->fn == nullptr) refuse("a step has no function");
    for (const Ref& r : g->refs) check(r, n_slots);
    return;
  }
  const auto& s = std::get<NativeStep>(step.what);
  if (s.fn == nullptr) refuse("a step has no function");
  if (s.views.size() > size_t(kMaxOperands) || s.attrs.size() > size_t(kMaxAttrs))
    refuse("a step has too many operands");
  for (const Ref& r : s.refs) check(r, n_slots);
  for (const Ref& r : s.epilogue_refs) check(r, n_slots);
  for (const MadeInput& m : s.made) {
    if (m.fn == nullptr || m.input < 0 || m.input >= s.n_in) refuse("a prologue makes no input");
    for (const Ref& r : m.refs) check(r, n_slots);
  }
  if (s.on_rows != nullptr) check(s);
}

// The matrices are the result.
void Program::check(const NativeStep& s) {
  const RowLoop& r = s.rows;
  const View* out = s.views.size() > size_t(s.n_in) ? &s.views[s.n_in] : nullptr;
  int64_t elements = 1;
  for (int d = 0; out != nullptr && d < out->rank; ++d) elements *= out->shape[d];
  if (out == nullptr || r.matrices < 0 || r.rows < 1 || r.columns < 1 || r.units < 1 || r.grain < 1 ||
      r.result >= int64_t(s.epilogue_refs.size()) || (r.result >= 0 && s.epilogue_refs.size() > size_t(kMaxTaken)) ||
      elements / r.rows / r.columns != r.matrices || elements % (r.rows * r.columns) != 0)
    refuse("the rows of an epilogue are not those of the result");
}

}  // namespace nl
