// bind_program.cpp: makes programs out of the compiler's plain Python lists, dictionaries and tuples.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "../runtime/program.hpp"
#include "parts.hpp"

namespace py = pybind11;

namespace nl {
namespace {

// With the Python objects whose code it calls.
struct BoundProgram : Program {
  using Program::Program;
  py::list kept;
};

template <class Fn>
Fn function_at(const py::handle& address) {
  return reinterpret_cast<Fn>(address.cast<uintptr_t>());
}

Ref::Kind kind_of(const std::string& name) {
  if (name == "slot") return Ref::Kind::slot;
  if (name == "arena") return Ref::Kind::arena;
  if (name == "scalar") return Ref::Kind::scalar;
  if (name == "const") return Ref::Kind::constant;
  throw std::invalid_argument("Program: a reference is a slot, arena, scalar or const, not " + name);
}

DType dtype_of(const std::string& text) {
  for (int i = 0; i < kDTypes; ++i)
    if (text == kDTypeInfo[i].text) return DType(i);
  throw std::invalid_argument("Program: there is no dtype " + text);
}

// (kind, index, byte_offset, offset_class, itemsize)
Ref parse_ref(const py::handle& object) {
  const auto t = object.cast<py::tuple>();
  if (t.size() != 5) throw std::invalid_argument("Program: a reference has five parts");
  return {kind_of(t[0].cast<std::string>()), t[4].cast<int32_t>(), t[3].cast<int32_t>(), t[1].cast<uint32_t>(),
          t[2].cast<int64_t>()};
}

std::vector<Ref> parse_refs(const py::handle& list) {
  std::vector<Ref> refs;
  for (const py::handle& r : list) refs.push_back(parse_ref(r));
  return refs;
}

void copy_ints(const py::handle& from, int rank, int64_t* to) {
  const auto ints = from.cast<std::vector<int64_t>>();
  if (int(ints.size()) != rank) throw std::invalid_argument("Program: a view's shape and strides differ in length");
  std::copy(ints.begin(), ints.end(), to);
}

// (ref, shape, strides, dtype)
void add_view(const py::handle& object, NativeStep& step) {
  const auto t = object.cast<py::tuple>();
  if (t.size() != 4 || py::len(t[1]) > size_t(kMaxRank)) throw std::invalid_argument("Program: a view is malformed");
  View v{};
  v.rank = int32_t(py::len(t[1]));
  copy_ints(t[1], v.rank, v.shape);
  copy_ints(t[2], v.rank, v.strides);
  v.dtype = dtype_of(t[3].cast<std::string>());
  step.refs.push_back(parse_ref(t[0]));
  step.views.push_back(v);
}

GeneratedStep parse_generated(const py::dict& d) {
  return {function_at<GeneratedFn>(d["address"]), parse_refs(d["refs"]), d["ints"].cast<std::vector<int64_t>>(),
          d["range"].cast<int64_t>(), d["grain"].cast<int64_t>()};
}

MadeInput parse_made(const py::dict& d) {
  return {d["input"].cast<int>(), function_at<PrologueFn>(d["address"]), parse_refs(d["refs"]),
          d["ints"].cast<std::vector<int64_t>>()};
}

// (matrices, rows, columns, units, grain, result)
RowLoop parse_rows(const py::handle& object) {
  const auto n = object.cast<std::vector<int64_t>>();
  if (n.size() != 6) throw std::invalid_argument("Program: the rows of an epilogue are six numbers");
  return {n[0], n[1], n[2], n[3], n[4], n[5]};
}

NativeStep parse_native(const py::dict& d) {
  NativeStep s{};
  s.fn = function_at<NativeFn>(d["address"]);
  s.op = d["op"].cast<uint16_t>();
  s.asked = d.contains("asked") ? d["asked"].cast<uint16_t>() : s.op;
  for (const py::handle& v : d["ins"]) add_view(v, s);
  s.n_in = int(s.views.size());
  for (const py::handle& v : d["outs"]) add_view(v, s);
  s.attrs = d["attrs"].cast<std::vector<int64_t>>();
  if (d.contains("epilogue") && !d["epilogue"].is_none()) {
    const auto e = d["epilogue"].cast<py::dict>();
    if (e.contains("rows")) {
      s.on_rows = function_at<GeneratedFn>(e["address"]);
      s.rows = parse_rows(e["rows"]);
    } else {
      s.on_tiles = function_at<EpilogueFn>(e["address"]);
    }
    s.epilogue_refs = parse_refs(e["refs"]);
    s.epilogue_ints = e["ints"].cast<std::vector<int64_t>>();
  }
  if (d.contains("prologues"))
    for (const py::handle& p : d["prologues"]) s.made.push_back(parse_made(p.cast<py::dict>()));
  return s;
}

Step parse_step(const py::dict& d) {
  const int64_t record = d.contains("record") ? d["record"].cast<int64_t>() : -1;
  const auto kind = d["kind"].cast<std::string>();
  if (kind == "generated") return {parse_generated(d), record};
  if (kind == "native") return {parse_native(d), record};
  throw std::invalid_argument("Program: a step is generated or native, not " + kind);
}

std::unique_ptr<BoundProgram> make_program(uint32_t n_slots, int64_t arena_bytes, const py::list& constants,
                                           const py::list& steps) {
  std::vector<std::string> bytes;
  for (const py::handle& c : constants) bytes.push_back(c.cast<py::bytes>());
  std::vector<Step> parsed;
  for (const py::handle& s : steps) parsed.push_back(parse_step(s.cast<py::dict>()));
  return std::make_unique<BoundProgram>(n_slots, arena_bytes, bytes, std::move(parsed));
}

void run_at(const BoundProgram& program, const std::vector<uintptr_t>& slots, const std::vector<int64_t>& offsets,
            const std::vector<uint64_t>& scalars) {
  std::vector<char*> pointers;
  for (const uintptr_t address : slots) pointers.push_back(reinterpret_cast<char*>(address));
  const py::gil_scoped_release release;
  program.run(pointers.data(), offsets.data(), scalars.data());
}

}  // namespace

void bind_program(py::module_& m) {
  py::class_<BoundProgram>(m, "Program", R"(A compiled trace that can be replayed.

A reference is (kind, index, byte_offset, offset_class, itemsize) with kind "slot", "arena", "scalar" or "const".
steps: dictionaries, either
  kind="generated", address, refs, ints, range, grain, or
  kind="native", address, op, asked (the op that errors name, if another), ins, outs, attrs, epilogue (None or a
  dictionary of address, refs, ints and, if it runs on rows, rows=(matrices, rows, columns, units, grain, result)),
  prologues (of inputs that do not lie in memory: dictionaries of input, address, refs, ints),
where ins and outs hold (reference, shape, strides, dtype), and either may give `record`, the tape record it stems from.
An epilogue may name one of MAX_TAKEN operands as `result`, which it then gets wherever its rows are.)")
      .def(py::init(&make_program), py::arg("n_slots"), py::arg("arena_bytes"), py::arg("constants"), py::arg("steps"))
      .def_property_readonly("arena_bytes", &BoundProgram::arena_bytes)
      .def_property_readonly("n_steps", &BoundProgram::n_steps)
      .def_property_readonly(
          "address", [](const BoundProgram& p) { return reinterpret_cast<uintptr_t>(static_cast<const Program*>(&p)); })
      .def(
          "keep", [](BoundProgram& p, const py::object& o) { p.kept.append(o); }, py::arg("obj"),
          "Keeps `obj`, a library whose code the steps call, alive as long as the program.")
      .def("run", &run_at, py::arg("slots"), py::arg("offsets"), py::arg("scalars"),
           "Replays on memory at the given addresses. Tapes are replayed through the hot door instead.")
      .attr("MAX_TAKEN") = Program::kMaxTaken;
}

}  // namespace nl
