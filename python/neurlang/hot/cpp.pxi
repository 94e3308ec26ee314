# cpp.pxi: what the hot door uses of the C++ core.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

cdef extern from "base/raise.hpp" namespace "nl":
    void raise_python()


cdef extern from "base/view.hpp" namespace "nl":
    enum:
        MAX_RANK "nl::kMaxRank"
        MAX_OPERANDS "nl::kMaxOperands"
        MAX_ATTRS "nl::kMaxAttrs"
    cdef cppclass DType:
        pass
    DType as_dtype "nl::DType"(int)
    int dtype_id "int"(DType)
    int64_t itemsize(DType)
    DType wide(DType)
    ctypedef void (*MapFn)(char**, const int64_t*, int64_t, int64_t) noexcept nogil

cdef extern from "base/shapes.hpp" namespace "nl":
    cdef cppclass Dims:
        int32_t rank
        int64_t d[8]
    int normalize_axis(const char* op, int64_t axis, int rank) except +raise_python
    Dims shape_broadcast(const char* op, const Dims* shapes, int n) except +raise_python
    Dims shape_reduce(const char* op, const Dims& x, int axis) except +raise_python
    Dims shape_matmul(const char* op, const Dims& a, const Dims& b) except +raise_python
    Dims shape_permute(const char* op, const Dims& x, const int64_t* axes, int n) except +raise_python
    Dims shape_cat(const char* op, const Dims* shapes, int n, int axis) except +raise_python
    Dims shape_expand(const char* op, const Dims& x, const int64_t* wanted, int n) except +raise_python
    Dims shape_checked(const char* op, const int64_t* wanted, int n) except +raise_python
    Dims shape_conv2d(const char* op, const Dims& x, const Dims& w, const int64_t* attr) except +raise_python
    Dims shape_conv2d_input(const char* op, const Dims& g, const Dims& w, const int64_t* attr) except +raise_python
    Dims shape_conv2d_weight(const char* op, const Dims& x, const Dims& g, const int64_t* attr) except +raise_python
    Dims shape_pool2d(const char* op, const Dims& x, const int64_t* attr) except +raise_python
    Dims shape_adaptive_pool2d(const char* op, const Dims& x, const int64_t* attr) except +raise_python
    Dims shape_scatter(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis) except +raise_python
    Dims shape_index_select(const char* op, const Dims& x, const Dims& index, int axis) except +raise_python
    Dims shape_index_add(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis) except +raise_python
    Dims shape_gather(const char* op, const Dims& x, const Dims& index, int axis) except +raise_python

cdef extern from "ops.gen.hpp" namespace "nl":
    const char* kTableFingerprint

cdef extern from "runtime/storage.hpp" namespace "nl":
    enum:
        READ_ONLY "nl::kReadOnly"
        FOREIGN "nl::kForeign"
    cdef cppclass AtomicInt "std::atomic<int32_t>":
        int load()
        int fetch_add(int)
    cdef cppclass AtomicLong "std::atomic<int64_t>":
        int64_t load()
    cdef cppclass AtomicTape "std::atomic<nl::Tape*>":
        Tape* load()
    cdef cppclass Storage:
        AtomicLong refs
        char* data
        int64_t bytes
        uint32_t version
        uint8_t flags
        AtomicInt exports
        AtomicInt loans
        AtomicTape pending
        bint readable()
        void retain()
        void release()
        void materialize() except +raise_python
        @staticmethod
        Storage* allocate(int64_t) except +raise_python
        @staticmethod
        Storage* deferred(int64_t) except +raise_python
        @staticmethod
        Storage* borrow(void*, int64_t, uint8_t, void (*)(void*) noexcept, void*) except +raise_python

cdef extern from "eager/eager.hpp" namespace "nl":
    enum:
        MAX_OPS "nl::kMaxOps"
    cdef struct TensorData:
        Storage* storage
        int64_t offset
        int64_t shape[8]
        int64_t strides[8]
        int32_t rank
        DType dtype
    cdef struct Operand:
        const TensorData* tensor
        uint64_t bits
        DType dtype
    int64_t numel(const TensorData&) nogil
    cbool is_contiguous(const TensorData&) nogil
    void set_contiguous_strides(TensorData&) nogil
    void extent(const TensorData&, int64_t*, int64_t*) nogil
    cbool overlaps_partially(const TensorData&, const TensorData&) nogil
    cbool overlaps_itself(const TensorData&) nogil
    void execute(uint16_t, const Operand*, int, TensorData*, int, const int64_t*, int) except +raise_python nogil
    void run_dense_kernel "nl::run_dense"(MapFn, char**, const int64_t*, int64_t) nogil
    MapFn map_kernel(uint16_t, DType) nogil
    void set_map_kernel(uint16_t, DType, MapFn)

cdef extern from "eager/reshape.hpp" namespace "nl":
    cbool lay_out(const char* op, const TensorData& x, const int64_t* wanted, int n, TensorData& v) except +raise_python

cdef extern from "runtime/alloc.hpp":
    void* nl_alloc(int64_t) except +raise_python
    void nl_free(void*, int64_t)

cdef extern from "runtime/program.hpp" namespace "nl":
    int64_t failed_step "nl::Program::failed_step"()
    cdef cppclass Program:
        void run(char**, const int64_t*, const uint64_t*, uint64_t) except +raise_python nogil
        void fix(const vector[uint8_t]&)

cdef extern from "eager/tape.hpp" namespace "nl":
    cdef struct TapeSlot "nl::Tape::Slot":
        Storage* storage
        cbool leaf
        cbool written
    cdef struct TapeRead "nl::Tape::Read":
        cbool is_tensor
        DType dtype
        uint32_t index
        int64_t offset_class
        int32_t rank
        const uint64_t* shape
        const uint64_t* strides
    cdef cppclass TapeRecord "nl::Tape::Record":
        uint16_t op
        int n_in
        int n_out
        int n_attr
        TapeRead operand[12]
        const uint64_t* attr
    cdef cppclass Tape:
        Tape() except +
        void stand_in(Storage*) except +
        uint64_t seal() nogil
        size_t read(size_t, TapeRecord&) nogil
        void run() except +raise_python nogil
        void replay(const Program&, const vector[uint8_t]&) except +raise_python nogil
        void forgive(size_t) nogil
        int64_t foreign_write() nogil
        void drop(const string&) nogil
        void clear() nogil
        void finish() nogil
        cbool live(size_t) nogil
        cbool leaves_overlap() nogil
        cbool holds_dead_bytes(int64_t) nogil
        int64_t failed_op() nogil
        vector[uint64_t] words
        vector[int64_t] offsets
        vector[uint64_t] scalars
        vector[TapeSlot] slots
        size_t n_ops
        size_t body_words
        int64_t leaf_bytes
        cbool wrote_exported
        cbool checked
        void* recorder
    Tape*& current_tape() nogil
    void set_current_tape(Tape*) nogil
    void check_usable(const Storage*, const Tape*) except +raise_python nogil
