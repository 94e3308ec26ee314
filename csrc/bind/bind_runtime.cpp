// bind_runtime.cpp: threads, memory, the processor, loaded libraries, and the exact fma of the interpreter.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>
#include <utility>

#include "../base/errors.hpp"
#include "../eager/blas.hpp"
#include "../eager/eager.hpp"
#include "../eager/tape.hpp"
#include "../runtime/alloc.hpp"
#include "../runtime/count.hpp"
#include "../runtime/cpu.hpp"
#include "../runtime/interrupt.hpp"
#include "../runtime/library.hpp"
#include "../runtime/limits.hpp"
#include "../runtime/threads.hpp"
#include "parts.hpp"
#include "vec_text.gen.hpp"

namespace py = pybind11;

namespace nl {
namespace {

py::dict memory() {
  const MemoryStats s = memory_stats();
  py::dict d;
  d["in_use"] = s.in_use;
  d["cached"] = s.cached;
  d["mapped"] = s.mapped;
  d["peak"] = s.peak;
  d["arenas"] = s.arenas;
  d["requests"] = s.requests;
  return d;
}

// Memory of the allocator, for as long as the object lives.
class Block {
 public:
  explicit Block(int64_t bytes) : bytes_(bytes) {
    const py::gil_scoped_release release;
    memory_ = nl_alloc(bytes);
  }
  ~Block() {
    const py::gil_scoped_release release;
    nl_free(memory_, bytes_);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(memory_); }

 private:
  int64_t bytes_;
  void* memory_;
};

const char* isa() { return isa_name(isa_level()); }
const char* simd_header() { return kVecText; }

uintptr_t symbol_address(const Library& library, const std::string& name) {
  void* address = library.symbol(name);
  if (address == nullptr) throw py::key_error("the library has no symbol " + name);
  return reinterpret_cast<uintptr_t>(address);
}

Library load_library(const py::object& source) {
  if (py::isinstance<py::bytes>(source)) return Library::from_bytes(source.cast<std::string>());
  return Library::from_path(py::module_::import("os").attr("fspath")(source).cast<std::string>());
}

void set_threads(const py::object& n) {
  if (!PyIndex_Check(n.ptr()))
    throw DTypeError("set_num_threads: expected an integer, got " + py::repr(n).cast<std::string>());
  const Py_ssize_t count = PyNumber_AsSsize_t(n.ptr(), nullptr);  // the nearest one where 64 bits do not hold it
  if (PyErr_Occurred()) throw py::error_already_set();
  set_num_threads(count);
}

// Whatever the handlers compute is no part of the trace that may be open.
bool run_signal_handlers() {
  const py::gil_scoped_acquire acquire;
  Tape* tape = std::exchange(current_tape(), nullptr);
  const bool raised = PyErr_CheckSignals() != 0;
  current_tape() = tape;
  return raised;
}

void bind_threads(py::module_& m) {
  set_interrupt_hook(run_signal_handlers);
  m.def("set_num_threads", &set_threads, py::arg("n"),
        "Sets how many threads, the calling one included, an operation may use. Results do not depend on it.\n\n"
        ">>> threads = neurlang.get_num_threads()\n>>> neurlang.set_num_threads(1)\n"
        ">>> neurlang.get_num_threads()\n1\n>>> neurlang.set_num_threads(threads)");
  m.def("get_num_threads", &nl_num_threads,
        "How many threads an operation may use.\n\n>>> neurlang.get_num_threads() >= 1\nTrue");
}

void bind_memory(py::module_& m) {
  py::class_<Block>(m, "Block", "Memory of the allocator, uninitialised, for as long as this object lives.")
      .def(py::init<int64_t>(), py::arg("nbytes"))
      .def_property_readonly("address", &Block::address);
  m.def("memory_stats", &memory,
        "Bytes of the allocator: in use, cached, mapped (their sum), and the peak of what was mapped, cache included;\n"
        "of those in use the arenas (scratch memory that threads keep); and how many requests the system got.\n\n"
        ">>> stats = neurlang.memory_stats()\n"
        ">>> stats['mapped'] == stats['in_use'] + stats['cached']\nTrue");
  m.def("reset_peak_memory_stats", &reset_peak_memory,
        "Lets `memory_stats()['peak']` count anew from what is mapped now: after `release_cached_memory()` that is\n"
        "little more than what is in use.\n\n"
        ">>> neurlang.reset_peak_memory_stats()\n>>> stats = neurlang.memory_stats()\n"
        ">>> stats['peak'] == stats['mapped']\nTrue");
  m.def("release_cached_memory", &release_cached_memory,
        "Gives memory that waits for reuse back to the system.\n\n"
        ">>> x = neurlang.empty(1 << 20)\n>>> del x\n>>> cached = neurlang.memory_stats()['cached']\n"
        ">>> neurlang.release_cached_memory()\n>>> neurlang.memory_stats()['cached'] < cached\nTrue");
  m.def("allocation_count", &allocation_count,
        "Requests for memory (malloc, new, mmap) of this module so far.\n\n"
        ">>> before = neurlang.allocation_count()\n>>> x = neurlang.empty(1000)\n"
        ">>> neurlang.allocation_count() >= before\nTrue");
}

void bind_cpu(py::module_& m) {
  m.def("isa", &isa, "The instruction level in use.\n\n>>> neurlang.isa() in neurlang.isa_supported()\nTrue");
  m.def("isa_supported", &isa_supported,
        "The instruction levels that this machine can use, lowest first.\n\n"
        ">>> neurlang.isa() in neurlang.isa_supported()\nTrue");
  m.def("simd_header", &simd_header, "The text with which every generated kernel file begins.");
  m.def(
      "_limits",
      [](const std::string& root) {
        return py::make_tuple(available_cpus(root), total_memory(root), available_memory(root));
      },
      py::arg("root") = "/",
      "Processors, bytes in all and bytes still free that affinity, cgroups and the machine leave to this process, by "
      "the files of /proc and /sys below `root`, which ends with a slash.");
  m.def(
      "available_cpus", [] { return available_cpus(); },
      "Processors that affinity and cgroup limits leave to this process.\n\n"
      ">>> neurlang.available_cpus() >= 1\nTrue");
}

void bind_code(py::module_& m) {
  py::class_<Library>(m, "Library", "A loaded shared library; its code lives as long as this object.")
      .def("symbol", &symbol_address, py::arg("name"), "The address of an exported symbol.");
  m.def("load_library", &load_library, py::arg("source"), "Loads a shared library from its bytes or from a path.");
  m.def(
      "use_blas",
      [](uintptr_t sgemm, uintptr_t dgemm, uintptr_t set_threads) {
        use_blas({reinterpret_cast<Gemm<float>>(sgemm), reinterpret_cast<Gemm<double>>(dgemm),
                  reinterpret_cast<void (*)(int64_t)>(set_threads)});
      },
      py::arg("sgemm"), py::arg("dgemm"), py::arg("set_threads"),
      "Lets these functions of a BLAS library compute float products; zeros: our own kernels.");
  m.def(
      "native_address", [](uint16_t op) { return reinterpret_cast<uintptr_t>(native_function(op)); }, py::arg("op"),
      "The address of the function that runs row `op` in a program's native step.");
}

void bind_fma(py::module_& m) {
  m.def("fma_f32", py::vectorize([](float a, float b, float c) { return std::fma(a, b, c); }),
        "a * b + c with one rounding, on broadcast float32 arrays.");
  m.def("fma_f64", py::vectorize([](double a, double b, double c) { return std::fma(a, b, c); }),
        "a * b + c with one rounding, on broadcast float64 arrays.");
}

}  // namespace

void bind_runtime(py::module_& m) {
  isa_level();  // an environment variable that makes no sense shows at import, not in the first operation
  nl_num_threads();
  bind_threads(m);
  bind_memory(m);
  bind_cpu(m);
  bind_code(m);
  bind_fma(m);
}

}  // namespace nl
