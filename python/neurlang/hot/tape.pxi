# tape.pxi: the hot end of tracing: the open tape, cuts, and what Python sees of a tape.

cdef object flush_hook = None
cdef object backward_hook = None
cdef object compile_hook = None


def set_hooks(*, flush=None, backward=None, compile=None):
    """Installs the three ways upward: `flush(reason)` cuts the open trace, `backward(tensors, …)` is the engine,
    `compile(row, dtype)` gives the address of the kernel of a row registered at run time."""
    global flush_hook, backward_hook, compile_hook
    flush_hook = flush or flush_hook
    backward_hook = backward or backward_hook
    compile_hook = compile or compile_hook


cdef int flush(str reason) except -1:
    flush_hook(reason)
    return 0


cdef int readable(Tensor x, str reason) except -1:
    """Makes the values of x available: cuts the trace that still owes them."""
    if x.d.storage.pending.load() != NULL and x.d.storage.pending.load() == current_tape():
        flush(reason)
    check_usable(x.d.storage, NULL)
    return 0


def user_line():
    """(code, instruction offset) of the nearest frame outside the package."""
    frame = sys_getframe(0)
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "neurlang":
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lasti)


cdef class TapeRecorder:
    """A thread's tape: opened by a trace, sealed, then replayed by a program or run op by op."""
    cdef Tape* tape
    cdef readonly list lines
    cdef object __weakref__

    def __cinit__(self):
        self.tape = new Tape()
        self.lines = []

    def __dealloc__(self):
        if current_tape() == self.tape:
            set_current_tape(NULL)
        del self.tape

    def open(self, bint lines, bint checked):
        """Starts recording on this thread; with `lines` also where, with `checked` also what lent memory holds."""
        set_current_tape(self.tape)
        self.tape.checked = checked
        self.tape.recorder = <void*>self if lines else NULL

    def close(self):
        """Stops recording; what was recorded waits to be run."""
        set_current_tape(NULL)

    def stand_in(self, Likeness like):
        """A tensor in memory of its own that has no value: what a frozen program takes in a given tensor's place."""
        cdef TensorData d = like.d
        cdef int64_t lowest, highest
        d.offset = 0
        extent(d, &lowest, &highest)
        d.offset = -lowest
        d.storage = Storage.deferred((highest - lowest) * itemsize(d.dtype))
        self.tape.stand_in(d.storage)
        cdef Tensor x = wrap(&d)
        x.requires_grad_(like.requires_grad)
        return x

    @property
    def n_ops(self):
        return self.tape.n_ops

    def seal(self):
        """The hash of everything recorded; `key()` is what it hashes."""
        return self.tape.seal()

    def key(self):
        """The words of the sealed tape."""
        return bytes((<char*>self.tape.words.data())[:self.tape.words.size() * 8])

    def matches(self, bytes key):
        """Whether the sealed tape has exactly these words."""
        return (<size_t>len(key) == self.tape.words.size() * 8
                and memcmp(<char*>key, self.tape.words.data(), len(key)) == 0)

    def fits(self, bytes outputs):
        """Whether a program that makes `outputs` (a byte per slot) makes everything that lives."""
        cdef size_t i
        cdef const char* made = outputs
        for i in range(self.tape.slots.size()):
            if not self.tape.slots[i].leaf and not made[i] and self.tape.live(i):
                return False
        return True

    def outputs(self):
        """A byte per slot: 1 where a fresh slot lives on."""
        cdef size_t i
        return bytes([not self.tape.slots[i].leaf and self.tape.live(i) for i in range(self.tape.slots.size())])

    def leaves_overlap(self):
        return self.tape.leaves_overlap()

    def run(self):
        """Executes op by op with the eager kernels."""
        with nogil:
            self.tape.run()

    def replay(self, ProgramHandle program):
        """Executes through a compiled program."""
        with nogil:
            self.tape.replay(program.program[0], program.outputs)

    def memory(self, bytes outputs):
        """A byte array per slot: leaves and, once given memory, the fresh slots named by `outputs`; None for the rest."""
        cdef size_t i
        arrays = []
        for i in range(self.tape.slots.size()):
            if not self.tape.slots[i].leaf and outputs[i]:
                self.tape.slots[i].storage.materialize()
            arrays.append(storage_bytes(self.tape.slots[i].storage) if self.tape.slots[i].leaf or outputs[i] else None)
        return arrays

    def finish(self):
        """Says that everything recorded has run."""
        self.tape.finish()

    def forgive(self, slots):
        """Says that these slots were made before a replay failed."""
        for i in slots:
            self.tape.forgive(i)

    def failed_step(self):
        """The step of the last replay on this thread whose check failed, or -1."""
        return failed_step()

    def failed_op(self):
        """The number of the operation whose check failed, or -1."""
        return self.tape.failed_op()

    def drop(self, str reason):
        """Forgets everything; unfinished tensors raise `reason` when read."""
        self.tape.drop(reason.encode())
        self.lines = []

    def clear(self):
        """Forgets the records after they have run."""
        self.tape.clear()
        self.lines = []

    def records(self):
        """[(op, ins, outs, attrs)], operands as ("t", slot, dtype, offset_class, shape, strides) or ("s", index, dtype)."""
        cdef TapeRecord r
        cdef size_t at = 0
        cdef int i
        result = []
        end = self.tape.body_words or self.tape.words.size()
        while at < end:
            at = self.tape.read(at, r)
            operands = [read_operand(&r.operand[i]) for i in range(r.n_in + r.n_out)]
            result.append((rows[r.op].name, tuple(operands[:r.n_in]), tuple(operands[r.n_in:]),
                           tuple([<int64_t>r.attr[i] for i in range(r.n_attr)])))
        return result

    def slots(self):
        """[(kind, bytes, live, device)] with kind "leaf" or "fresh"."""
        cdef size_t i
        return [("leaf" if self.tape.slots[i].leaf else "fresh", self.tape.slots[i].storage.bytes,
                 bool(self.tape.live(i)), "cpu") for i in range(self.tape.slots.size())]

    def offsets(self):
        return list(self.tape.offsets)

    def scalar_values(self):
        """The 64-bit cells of the run-time scalars."""
        return list(self.tape.scalars)

    def foreign_write(self):
        """A slot whose memory others wrote since it was first used (only noticed when opened with `checked`), or -1."""
        return self.tape.foreign_write()


cdef object storage_bytes(Storage* s):
    """The memory of a storage as a flat array of bytes."""
    cdef TensorData d
    d.storage = s
    d.offset = 0
    d.rank = 1
    d.shape[0] = s.bytes
    d.strides[0] = 1
    d.dtype = as_dtype(U8)
    s.retain()
    return to_numpy(wrap(&d))


cdef tuple read_operand(const TapeRead* o):
    cdef int64_t stride = 1
    cdef str t = (<dtype>DTYPES[dtype_id(o.dtype)]).text
    cdef int i
    if not o.is_tensor:
        return "s", o.index, t
    shape = tuple([<int64_t>o.shape[i] for i in range(o.rank)])
    if o.strides != NULL:
        strides = tuple([<int64_t>o.strides[i] for i in range(o.rank)])
    else:
        strides = []
        for n in reversed(shape):
            strides.append(stride)
            stride *= py.max(n, 1)
        strides = tuple(reversed(strides))
    return "t", o.index, t, o.offset_class, shape, strides


cdef class ProgramHandle:
    """A compiled program as the hot door holds it: the C++ object and which slots it makes."""
    cdef Program* program
    cdef vector[uint8_t] outputs
    cdef readonly object owner  # the Python object that owns `program`

    def __init__(self, owner, bytes outputs):
        self.owner = owner
        self.program = <Program*><uintptr_t>owner.address
        self.outputs = outputs


cdef class Frozen:
    """A program with its operands bound: called with the listed inputs, it runs without recording anything."""
    cdef ProgramHandle handle
    cdef vector[Storage*] storages  # per slot: captured leaves; null for fresh slots
    cdef vector[int64_t] offsets
    cdef vector[uint64_t] scalars
    cdef vector[int64_t] bytes
    cdef vector[uint8_t] written  # per slot: by the program
    cdef vector[uint8_t] fixed  # per slot: captured and not written
    cdef bint writes_leaves
    cdef vector[TensorData] inputs  # as recorded
    cdef vector[int] input_slots
    cdef vector[TensorData] results
    cdef vector[int] result_slots
    cdef readonly tuple input_descriptions

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.storages.size()):
            if self.storages[i] != NULL:
                self.storages[i].release()

    def run(self, tuple tensors):
        """The results for these inputs, which must have the recorded dtypes, shapes and strides."""
        cdef vector[Storage*] slots = self.storages
        cdef vector[char*] pointers
        cdef Tensor x
        cdef size_t i
        cdef TensorData* want
        cdef TensorData d
        cdef Program* program = self.handle.program
        if current_tape() != NULL:
            flush("a frozen program is called")
        if <size_t>len(tensors) != self.inputs.size():
            raise TypeError(f"the frozen program takes {self.inputs.size()} tensors, got {len(tensors)}")
        for i in range(slots.size()):
            pointers.push_back(<char*>NULL if slots[i] == NULL else slots[i].data)
        for i in range(self.inputs.size()):
            x = need_tensor(tensors[i], "frozen program")
            want = &self.inputs[i]
            if not same_layout(&x.d, want):
                raise ShapeError(f"frozen program: input {i} must be {self.input_descriptions[i]}, got {describe(x)} "
                                 f"with strides {stride_tuple(&x.d)}")
            readable(x, "")
            if self.written[self.input_slots[i]]:
                check_writable(x, "frozen program")
            pointers[self.input_slots[i]] = x.d.storage.data + (x.d.offset - want.offset) * itemsize(want.dtype)
        if self.writes_leaves:
            self.check_apart(pointers)
        cdef uint64_t version = self.version()
        made = []
        try:
            for i in range(slots.size()):
                if slots[i] == NULL and self.handle.outputs[i]:
                    slots[i] = Storage.allocate(self.bytes[i])
                    made.append(i)
                    pointers[i] = slots[i].data
            with nogil:
                program.run(pointers.data(), self.offsets.data(), self.scalars.data(), version)
            self.count_writes(tensors)
            results = []
            for i in range(self.results.size()):
                if self.result_slots[i] < 0:
                    results.append(tensors[-self.result_slots[i] - 1])
                    continue
                d = self.results[i]
                d.storage = slots[self.result_slots[i]]
                d.storage.retain()
                results.append(wrap(&d))
            return results
        finally:
            for i in made:
                slots[i].release()

    cdef uint64_t version(self):
        """A number that grows whenever the fixed slots may have been written; 0 while somebody else may write them."""
        cdef size_t i
        cdef uint64_t total = 1
        for i in range(self.fixed.size()):
            if self.fixed[i]:
                if self.storages[i].exports.load() > 0 or self.storages[i].flags & FOREIGN:
                    return 0
                total += <uint64_t>self.storages[i].version + <uint64_t>self.storages[i].loans.load()
        return total

    cdef int check_apart(self, const vector[char*]& pointers) except -1:
        """Refuses inputs that lie over each other or over captured memory where one of the two is written."""
        cdef size_t i, slot, k
        for i in range(self.input_slots.size()):
            slot = self.input_slots[i]
            for k in range(pointers.size()):
                if (k != slot and (self.written[k] or self.written[slot]) and pointers[k] != NULL
                        and pointers[k] < pointers[slot] + self.bytes[slot]
                        and pointers[slot] < pointers[k] + self.bytes[k]):
                    raise AliasError(f"frozen program: input {i} shares memory with another input or with a captured "
                                     "tensor, and one of them is written; give a clone()")
        return 0

    cdef void count_writes(self, tuple tensors):
        """Raises the versions of what the program has written outside, as eager writes do."""
        cdef size_t i
        for i in range(self.inputs.size()):
            if self.written[self.input_slots[i]]:
                (<Tensor>tensors[i]).d.storage.version += 1
        for i in range(self.storages.size()):
            if self.storages[i] != NULL and self.written[i]:
                self.storages[i].version += 1


cdef bint same_layout(const TensorData* a, const TensorData* b):
    cdef int i
    if dtype_id(a.dtype) != dtype_id(b.dtype) or not same_shape(a, b):
        return False
    for i in range(a.rank):
        if a.shape[i] > 1 and a.strides[i] != b.strides[i]:
            return False
    return True


cdef int slot_of(Tape* tape, Storage* s):
    cdef size_t i
    for i in range(tape.slots.size()):
        if tape.slots[i].storage == s:
            return i
    return -1


cdef bint contains(const vector[int]& numbers, int x):
    cdef size_t i
    for i in range(numbers.size()):
        if numbers[i] == x:
            return True
    return False


def freeze_tape(TapeRecorder recorder, ProgramHandle handle, tuple inputs, tuple results):
    """Binds a sealed tape's program: tensors are given for `inputs`, its stand-ins, at each call; all else is captured."""
    cdef Frozen f = Frozen.__new__(Frozen)
    cdef Tape* tape = recorder.tape
    cdef Tensor x
    cdef size_t i
    cdef int slot
    cdef uint8_t stays
    f.handle = handle
    f.offsets = tape.offsets
    f.scalars = tape.scalars
    for i in range(<size_t>len(inputs)):
        x = inputs[i]
        f.inputs.push_back(x.d)
        f.input_slots.push_back(slot_of(tape, x.d.storage))
    for i in range(tape.slots.size()):
        given = not tape.slots[i].leaf or contains(f.input_slots, i)
        f.bytes.push_back(tape.slots[i].storage.bytes)
        f.written.push_back(tape.slots[i].written)
        f.writes_leaves |= tape.slots[i].leaf and tape.slots[i].written
        f.storages.push_back(<Storage*>NULL if given else tape.slots[i].storage)
        stays = not given and not tape.slots[i].written  # within the call it would be a reference that dangles
        f.fixed.push_back(stays)
        if not given:
            tape.slots[i].storage.retain()
    for i in range(<size_t>len(results)):
        x = results[i]
        slot = slot_of(tape, x.d.storage)
        if slot < 0 or contains(f.input_slots, slot):
            positions = [j for j in range(<size_t>len(inputs)) if (<Tensor>inputs[j]).d.storage == x.d.storage]
            if not positions or not same_layout(&(<Tensor>inputs[positions[0]]).d, &x.d):
                raise TraceError(f"freeze: the result {describe(x)} is neither computed by the block nor one of its "
                                 "inputs; return a clone")
            slot = -positions[0] - 1
        f.results.push_back(x.d)
        f.result_slots.push_back(slot)
    handle.program.fix(f.fixed)
    f.input_descriptions = tuple([describe(x) for x in inputs])
    return f
