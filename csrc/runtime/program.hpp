// program.hpp: a compiled trace: constants, a plan of memory and a list of steps. Replaying it calls each step.
#pragma once
#include <atomic>
#include <string>
#include <variant>
#include <vector>

#include "../base/view.hpp"

namespace nl {

// Where an operand lies; resolved anew at every run.
struct Ref {
  enum class Kind : uint8_t { slot, arena, scalar, constant };
  Kind kind;
  int32_t itemsize;      // of the elements that `offset_class` counts
  int32_t offset_class;  // number of a run-time offset, or -1
  uint32_t index;        // slot, scalar or constant
  int64_t byte_offset;
};

using GeneratedFn = void (*)(void* const* ptr, const int64_t* n, int64_t begin, int64_t end);
using EpilogueFn = void (*)(void* const* ptr, const int64_t* n, int64_t b, int64_t i0, int64_t i1, int64_t j0,
                            int64_t j1);
using PrologueFn = void (*)(void* const* ptr, const int64_t* n, int64_t b, int64_t i0, int64_t i1, int64_t j0,
                            int64_t j1, void* to, int64_t pitch);

// A loop nest whose outermost index runs over [0, range).
struct GeneratedStep {
  GeneratedFn fn;
  std::vector<Ref> refs;
  std::vector<int64_t> ints;
  int64_t range, grain;
};

// What makes one input of a native step, which does not lie in memory.
struct MadeInput {
  int input;
  PrologueFn fn;
  std::vector<Ref> refs;
  std::vector<int64_t> ints;
};

// Rows that end a contraction: those of matrices of `rows` x `columns` in turn. Each is `units` of the loop's index.
// `result` is the number of the operand that is the contraction's result if nobody else reads that, or -1.
struct RowLoop {
  int64_t matrices, rows, columns, units, grain, result;
};

// A row of the table run by its eager kernel.
struct NativeStep {
  NativeFn fn;
  uint16_t op;
  uint16_t asked;  // the op whose index a person gave, for errors
  int n_in;
  std::vector<Ref> refs;    // inputs, then outputs
  std::vector<View> views;  // the same, with shape, strides and dtype
  std::vector<int64_t> attrs;
  EpilogueFn on_tiles;  // null, or what runs on finished tiles
  GeneratedFn on_rows;  // null, or what runs on finished rows
  RowLoop rows;         // then, how
  std::vector<Ref> epilogue_refs;
  std::vector<int64_t> epilogue_ints;
  std::vector<MadeInput> made;
  bool fixed;         // all operands but the first lie in fixed slots
  mutable Kept kept;  // then what the kernel made of them
};

struct Step {
  std::variant<GeneratedStep, NativeStep> what;
  int64_t record;  // the number of the tape's record it stems from, for error messages
};

class Program {
 public:
  // Operands of an epilogue that gets rows elsewhere than in the result: every thread has room for their pointers.
  static constexpr int kMaxTaken = 128;

  // Throws std::invalid_argument when a reference points outside of what the program has.
  Program(uint32_t n_slots, int64_t arena_bytes, const std::vector<std::string>& constants, std::vector<Step> steps);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // `slots`: the memory of each slot, null for those that live in the arena. Allocates nothing once the thread's arena
  // is long enough; several threads may run one program. Throws IndexError where a step's check fails.
  // `version` says what the fixed slots hold: as long as it stays the same, steps keep what they made of them; 0 if
  // that is not known.
  void run(char* const* slots, const int64_t* offsets, const uint64_t* scalars, uint64_t version = 0) const;

  // Names the slots (a byte for each) that hold the same memory in every run, whose scalars are the same, too.
  void fix(const std::vector<uint8_t>& slots);

  // The record whose check failed in the last run on this thread, or -1.
  static int64_t failed_op();
  // The number of that step; the steps before it have run.
  static int64_t failed_step();
  // A buffer for the `slots` of the next run on this thread.
  static std::vector<char*>& slot_pointers();

  int64_t arena_bytes() const { return arena_bytes_; }
  size_t n_steps() const { return steps_.size(); }

 private:
  struct Frame;
  struct Keeping;
  int64_t arena_bytes_;
  int64_t pointer_bytes_ = 0;  // behind the arena: the pointers of the step that runs
  int64_t row_bytes_ = 0;      // behind those: which rows are finished
  std::vector<Step> steps_;
  std::vector<char*> constants_;
  std::vector<int64_t> constant_bytes_;
  mutable std::atomic<bool> keeping_{false};  // by the run that may use what is kept; others at the same time do not
  mutable uint64_t kept_version_ = 0;

  void check(const Ref& ref, uint32_t n_slots) const;
  void check(const Step& step, uint32_t n_slots) const;
  static void check(const NativeStep& step);
};

}  // namespace nl
