# call.pxi: the eager call: operands in, promotion, shapes, one `execute`, a Tensor and perhaps a Node out.

cdef enum:
    RELEASE_GIL_ABOVE = 65536  # elements; below, letting go of the GIL costs more than it frees
    MUCH_WORK = RELEASE_GIL_ABOVE + 1
    SHORT = 32768              # elements; more are spread over threads
    MAX_TAPE_OPS = 65536
    DEAD_BYTES = 1 << 28       # leaves held only by the tape: more than this and it runs


cdef inline Tensor wrap(const TensorData* d):
    """A Tensor over `d`; takes over one reference of the storage."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t.d = d[0]
    return t


cdef inline void set_shape(TensorData* d, const Dims* shape, int t):
    d.storage = NULL
    d.offset = 0
    d.rank = shape.rank
    memcpy(d.shape, shape.d, sizeof(shape.d))  # all of it: a copy of known length is no call
    d.dtype = as_dtype(t)
    set_contiguous_strides(d[0])


cdef inline Dims dims_of(const TensorData* d) noexcept:
    cdef Dims r
    r.rank = d.rank
    memcpy(r.d, d.shape, sizeof(r.d))
    return r


cdef int sizes_from(object shape, str what, int64_t* sizes) except -1:
    """Writes down a Python sequence of at most MAX_RANK sizes; returns how many."""
    cdef tuple given = shape if type(shape) is tuple else tuple(shape)
    cdef int i, n = len(given)
    if n > MAX_RANK:
        raise ShapeError(f"{what}: {n} axes are more than the {MAX_RANK} supported")
    for i in range(n):
        sizes[i] = integer(what, given[i])
    return n


cdef int sizes_given(object first, object second, tuple more, str what, int64_t* sizes) except -1:
    """f((2, 3)) and f(2, 3) alike, for functions whose sizes are arguments.

    The second one is an argument of its own: a tuple of those behind the first costs 20 ns, a quarter of a reshape.
    """
    cdef int i, n = 1 if second is ABSENT else 2 + len(more)
    if n == 1 and isinstance(first, (tuple, list)):
        return sizes_from(first, what, sizes)
    if n > MAX_RANK:
        raise ShapeError(f"{what}: {n} axes are more than the {MAX_RANK} supported")
    sizes[0] = integer(what, first)
    if n > 1:
        sizes[1] = integer(what, second)
    for i in range(2, n):
        sizes[i] = integer(what, more[i - 2])
    return n


cdef Dims dims_from(object shape, str what) except *:
    """Sizes from a Python sequence or integer, checked for sign and overflow."""
    cdef int64_t wanted[MAX_RANK]
    cdef int n = sizes_from((shape,) if isinstance(shape, int) else shape, what, wanted)
    return shape_checked(PyUnicode_AsUTF8(what), wanted, n)


cdef inline int64_t clip_index(object x) except? -9223372036854775807:
    """An integer argument; numbers beyond 64 bits become the nearest that the checks then refuse."""
    cdef int beyond = 0
    cdef int64_t i = PyLong_AsLongLongAndOverflow(x if type(x) is int else PyNumber_Index(x), &beyond)
    if beyond or i == -9223372036854775807 - 1:
        return 9223372036854775807 if beyond > 0 else -9223372036854775806
    return i


cdef inline int64_t integer(str op, object x) except? -9223372036854775807:
    """`clip_index` for a call's argument: what is no integer is refused with the call's name."""
    return clip_index(x) if type(x) is int else integer_like(op, x)


cdef int64_t integer_like(str op, object x) except? -9223372036854775807:
    try:
        return clip_index(x)
    except TypeError:
        raise DTypeError(f"{op}: expected an integer, got {x!r}") from None


cdef int axis_of(str op, object dim, int rank) except -1:
    """An axis argument, checked and counted from the front."""
    return normalize_axis(PyUnicode_AsUTF8(op), integer(op, dim), rank)


def _integer(str op, x):
    """`integer` for the composites of ops/."""
    return integer(op, x)


cdef set OWN_ERRORS = {AttributeError, DTypeError, IndexError, ShapeError, TypeError, ValueError}


def _said_of(str op, error):
    """An error of an operation inside a composite, said of the composite, which is what the caller knows.

    IndexErrors inside a trace stay as they are: what was recorded before may raise them. So do classes of others, which
    a handler of signals or an argument's own method may raise.
    """
    if type(error) not in OWN_ERRORS:
        return error
    said, _, rest = str(error).partition(": ")
    if op in said or (isinstance(error, IndexError) and current_tape() != NULL):
        return error
    kind = DTypeError if type(error) in (TypeError, AttributeError) else type(error)
    return kind(f"{op}: {rest if said in OP or hasattr(F, said) else error}")


def _axis(str op, x, dim):
    """`axis_of` for the composites of ops/."""
    return axis_of(op, dim, need_tensor(x, op).d.rank)


cdef tuple dims_tuple(const Dims* a):
    return tuple([a.d[i] for i in range(a.rank)])


cdef tuple shape_tuple(const TensorData* d):
    if d.rank == 1:
        return (d.shape[0],)
    if d.rank == 2:
        return (d.shape[0], d.shape[1])
    return tuple([d.shape[i] for i in range(d.rank)])


cdef tuple stride_tuple(const TensorData* d):
    return tuple([d.strides[i] for i in range(d.rank)])


cdef inline int run(int op, const Operand* ins, int n_in, TensorData* outs, int n_out,
                    const int64_t* attr, int n_attr, int64_t work) except -1:
    """Executes or records; afterwards runs the tape where it must not grow on."""
    cdef Tape* tape = current_tape()
    if tape == NULL:
        if work > RELEASE_GIL_ABOVE:
            with nogil:
                execute(op, ins, n_in, outs, n_out, attr, n_attr)
        else:
            execute(op, ins, n_in, outs, n_out, attr, n_attr)
        return 0
    execute(op, ins, n_in, outs, n_out, attr, n_attr)
    return recorded(tape)


cdef inline int recorded(Tape* tape) except -1:
    """After each record: its line where wanted, and a run of the tape where it must not grow on."""
    if tape.recorder != NULL:
        (<TapeRecorder>tape.recorder).lines.append(user_line())
    if tape.wrote_exported:
        flush("an in-place write to memory shared with NumPy")
    elif tape.n_ops >= MAX_TAPE_OPS:
        flush(f"the tape reached {MAX_TAPE_OPS} operations")
    elif tape.leaf_bytes > DEAD_BYTES and tape.holds_dead_bytes(DEAD_BYTES):
        flush(f"the tape alone keeps more than {DEAD_BYTES >> 20} MiB of inputs alive")
    return 0


cdef Tensor cast(Tensor x, int t):
    """x in dtype t; x itself when it is already."""
    if dtype_id(x.d.dtype) == t:
        return x
    return map1(CAST_OP[t], x)


cdef int CAST_OP[N_DTYPES]
for _t in DTYPES:
    CAST_OP[_t.id] = OP["to_" + _t.name]
cdef int ADD_OP = OP["add"], COPY_OP = OP["copy"], MATMUL_OP = OP["matmul"]


cdef inline void operand(Operand* o, object x, int t) except *:
    """Points `o` at a tensor of dtype t, or stores the number x as one."""
    if isinstance(x, Tensor):
        o.tensor = &(<Tensor>x).d
    else:
        o.tensor = NULL
        o.bits = scalar_bits(x, t)
        o.dtype = as_dtype(t)


cdef inline bint is_tensor(object x):
    return type(x) is Tensor or isinstance(x, Tensor)


cdef int prepare(int op, list args, Operand* ins) except -2:
    """Promotes and casts the operands in place (args owns references); returns the compute dtype."""
    cdef const OpSpec* s = &specs[op]
    cdef int i, want, t = promote(s, args, op)
    for i in range(s.n_in):
        want = t if s.in_type[i] == ANY else s.in_type[i]
        if is_tensor(args[i]):
            if dtype_id((<Tensor>args[i]).d.dtype) != want:
                if s.in_type[i] != ANY and want != F64 and want != I64:
                    raise DTypeError(f"{rows[op].name}: operand {i} must be {DTYPES[want].name}, "
                                     f"got {describe(args[i])}")
                args[i] = cast(<Tensor>args[i], want)
            operand(&ins[i], args[i], want)
        else:
            operand(&ins[i], args[i], number_type(s, t) if s.in_type[i] == ANY else want)
    want = dtype_id(wide(as_dtype(t)))
    if op >= n_builtin and map_kernel(op, as_dtype(want)) == NULL:
        set_map_kernel(op, as_dtype(want), <MapFn><uintptr_t>compile_hook(rows[op], DTYPES[want].text))
    return t


cdef Dims broadcast(int op, list args, int n) except *:
    cdef Dims shapes[MAX_OPERANDS]
    cdef int i, count = 0
    for i in range(n):
        if is_tensor(args[i]):
            shapes[count] = dims_of(&(<Tensor>args[i]).d)
            count += 1
    return shape_broadcast(<const char*>OP_NAME[op], shapes, count)


cdef inline Node node_for(int op, tuple operands, tuple attrs):
    """The Node of a row that is about to run, or None where no gradient is wanted."""
    if specs[op].differentiable and grad_enabled() and any_wants_grad(operands):
        return row_node(op, operands, attrs)
    return None


cdef inline Tensor with_node(int op, Tensor out, tuple operands, tuple attrs):
    """The result of a row, connected to its operands where a gradient is wanted."""
    cdef Node node = node_for(op, operands, attrs)
    if node is not None:
        attach(out, node)
    return out


cdef Tensor map_n(int op, list args):
    cdef const OpSpec* s = &specs[op]
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData out
    cdef Dims shape
    cdef int t, i
    t = prepare(op, args, ins)
    shape = broadcast(op, args, s.n_in)
    set_shape(&out, &shape, t if s.out_type[0] == ANY else s.out_type[0])
    run(op, ins, s.n_in, &out, 1, NULL, 0, numel(out))
    return with_node(op, wrap(&out), tuple(args), ())


cdef inline bint same_shape(const TensorData* a, const TensorData* b):
    cdef int i
    if a.rank != b.rank:
        return False
    for i in range(a.rank):
        if a.shape[i] != b.shape[i]:
            return False
    return True


cdef inline bint is_plain(const TensorData* d):
    """Whether the elements can be read right now, one after another."""
    return d.storage.readable() and is_contiguous(d[0])


cdef inline bint computes_in(int op, int t):
    """Whether a row built in takes operands of dtype t as they are."""
    cdef const OpSpec* s = &specs[op]
    return s.in_type[0] == ANY and allowed(s.over, t) and not (s.promote_float and not is_float(t)) and op < n_builtin


cdef inline bint stands_beside(int op, object y, Tensor a, Operand* second) except -1:
    """Whether y needs no promotion beside a: a tensor of its dtype, or a number that it can hold. `second` is y then."""
    cdef int t = dtype_id(a.d.dtype)
    if is_tensor(y):
        second.tensor = &(<Tensor>y).d
        return dtype_id((<Tensor>y).d.dtype) == t
    if type(y) is not float and type(y) is not int:
        return False
    if not is_float(t) and (t <= U8 or type(y) is not int or not fits(y, t)):
        return False
    t = number_type(&specs[op], t)
    second.tensor = NULL
    second.bits = scalar_bits(y, t)
    second.dtype = as_dtype(t)
    return True


cdef Tensor run_short(int op, Tensor a, const Operand* further):
    """The short way of operands of one dtype, or numbers, behind a tensor: no promotion, no lists.

    Of one shape, but a second one of two may be broadcast. Few dense elements go to the kernel at once. None where the
    row does not take this dtype as it is.
    """
    cdef const OpSpec* s = &specs[op]
    cdef Operand ins[3]
    cdef MapFn kernel
    cdef Tensor out
    cdef int64_t n
    cdef int i
    if not computes_in(op, dtype_id(a.d.dtype)):
        return None
    out = Tensor.__new__(Tensor)
    if s.n_in == 2 and further.tensor != NULL and not same_shape(&a.d, further.tensor):
        set_broadcast(op, &out.d, &a.d, further.tensor)
        n = RELEASE_GIL_ABOVE
    else:
        set_like(&out.d, &a.d)
        n = numel(a.d)
    out.d.dtype = a.d.dtype if s.out_type[0] == ANY else as_dtype(s.out_type[0])
    if n <= SHORT and n > 0 and current_tape() == NULL and is_plain(&a.d) and are_plain(further, s.n_in - 1):
        kernel = map_kernel(op, a.d.dtype)
        if kernel != NULL:  # there is none for narrow dtypes
            run_dense_short(kernel, out, &a.d, further, s.n_in - 1, n)
            return out
    ins[0].tensor = &a.d
    for i in range(1, s.n_in):
        ins[i] = further[i - 1]
    run(op, ins, s.n_in, &out.d, 1, NULL, 0, numel(out.d))
    return out


cdef inline bint are_plain(const Operand* operands, int n):
    cdef int i
    for i in range(n):
        if operands[i].tensor != NULL and not is_plain(operands[i].tensor):
            return False
    return True


cdef inline int run_dense_short(MapFn kernel, Tensor out, const TensorData* a, const Operand* further, int n_further,
                                int64_t n) except -1:
    cdef char* ptr[4]
    cdef int64_t step[4]
    cdef const TensorData* x
    cdef int i
    out.d.storage = Storage.allocate(n * itemsize(out.d.dtype))
    ptr[0] = out.d.storage.data
    ptr[1] = a.storage.data + a.offset * itemsize(a.dtype)
    step[0] = itemsize(out.d.dtype)
    step[1] = itemsize(a.dtype)
    for i in range(n_further):
        x = further[i].tensor
        if x != NULL:
            ptr[2 + i] = x.storage.data + x.offset * itemsize(a.dtype)
            step[2 + i] = step[1]
        else:
            ptr[2 + i] = <char*>&further[i].bits
            step[2 + i] = 0
    run_dense_kernel(kernel, ptr, step, n)
    return 0


cdef inline void set_like(TensorData* d, const TensorData* x) noexcept:
    """x's shape, row-major."""
    d.storage = NULL
    d.offset = 0
    d.rank = x.rank
    memcpy(d.shape, x.shape, sizeof(d.shape))
    set_contiguous_strides(d[0])


cdef int set_broadcast(int op, TensorData* d, const TensorData* a, const TensorData* b) except -1:
    cdef Dims shapes[2]
    cdef Dims shape
    shapes[0] = dims_of(a)
    shapes[1] = dims_of(b)
    shape = shape_broadcast(OP_NAME[op], shapes, 2)
    set_shape(d, &shape, F32)
    return 0


cdef Tensor map1(int op, object x):
    cdef Tensor out
    if is_tensor(x):
        out = run_short(op, <Tensor>x, NULL)
        if out is not None:
            return out if not wants_grad(<Tensor>x) else with_node(op, out, (x,), ())
    return map_n(op, [as_operand(x)])


cdef Tensor map2(int op, object x, object y):
    cdef Operand second
    cdef Tensor out
    if is_tensor(x) and specs[op].in_type[1] == ANY and stands_beside(op, y, <Tensor>x, &second):
        out = run_short(op, <Tensor>x, &second)
        if out is not None:
            return with_node(op, out, (x, y), ()) if wants_grad(<Tensor>x) or is_tensor(y) and wants_grad(<Tensor>y) else out
    return map_n(op, [as_operand(x), as_operand(y)])


cdef inline bint stands_alike(int op, object y, Tensor a, Operand* further) except -1:
    """Whether y needs neither promotion nor broadcasting beside a. `further` is y then."""
    return stands_beside(op, y, a, further) and (further.tensor == NULL or same_shape(&a.d, further.tensor))


cdef Tensor map3(int op, object x, object y, object z):
    cdef Operand further[2]
    cdef Tensor out
    if (is_tensor(x) and specs[op].in_type[1] == ANY and specs[op].in_type[2] == ANY
            and stands_alike(op, y, <Tensor>x, &further[0]) and stands_alike(op, z, <Tensor>x, &further[1])):
        out = run_short(op, <Tensor>x, further)
        if out is not None:
            return with_node(op, out, (x, y, z), ())
    return map_n(op, [as_operand(x), as_operand(y), as_operand(z)])


cdef Tensor mapn(int op, tuple operands):
    if len(operands) != specs[op].n_in:
        raise TypeError(f"{rows[op].name} takes {specs[op].n_in} operands, got {len(operands)}")
    return map_n(op, [as_operand(x) for x in operands])


cdef object as_operand(object x):
    """Tensors and Python numbers pass; NumPy's scalars become numbers, its arrays tensors; all else is a TypeError."""
    if isinstance(x, Stale):
        x.refuse()
    if is_tensor(x) or type(x) is float or type(x) is int or type(x) is bool:
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, (int, float)):
        return x
    if isinstance(x, np.ndarray):
        return as_tensor(x)
    raise DTypeError(f"expected a Tensor or a number, got {type(x).__name__}; use neurlang.tensor")


# ---- rows with attributes: reduce, contract, window, index, composite ----

cdef int attributes(tuple values, int64_t* attr) except -1:
    """Writes down a row's attributes; returns how many."""
    cdef int i, n = len(values)
    if n > MAX_ATTRS:
        raise ValueError(f"{n} attributes are more than the {MAX_ATTRS} possible")
    for i in range(n):
        attr[i] = values[i]
    return n


cdef int attributes_of(str name, tuple values, int64_t* attr) except -1:
    """`attributes` of a caller who names them all: as many as the row has."""
    wanted = rows[OP[name]].attrs
    if len(values) != len(wanted):
        raise TypeError(f"{name} takes {len(wanted)} attributes ({', '.join(wanted)}), got {len(values)}")
    return attributes(values, attr)


cdef int operands_from(int op, tuple tensors, int t, Operand* ins) except -1:
    """Points at a row's operands, which have their final dtypes (numbers get theirs); returns how many."""
    cdef int i, n = len(tensors)
    cdef const OpSpec* s = &specs[op]
    if n >= MAX_OPERANDS:
        raise ValueError(f"{n} operands are more than the {MAX_OPERANDS - 1} possible")
    for i in range(n):
        operand(&ins[i], tensors[i], t if i >= s.n_in or s.in_type[i] == ANY else s.in_type[i])
    return n


cdef Tensor call(int op, tuple operands, Dims shape, int t, tuple attrs, int64_t work):
    """Runs row `op` on operands of final dtypes; the result has `shape` and dtype t."""
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData out
    cdef int64_t attr[MAX_ATTRS]
    cdef int n_in = operands_from(op, operands, t, ins), n_attr = attributes(attrs, attr)
    set_shape(&out, &shape, t)
    run(op, ins, n_in, &out, 1, attr, n_attr, work if work > numel(out) else numel(out))
    return with_node(op, wrap(&out), operands, attrs)


cdef tuple call_several(int op, tuple operands, tuple shapes, int t, tuple attrs, int64_t work):
    """Runs row `op`, which has several results; only the first one has a gradient."""
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData outs[MAX_OPERANDS]
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    cdef Node node
    cdef int i, n = specs[op].n_out, n_in = operands_from(op, operands, t, ins), n_attr = attributes(attrs, attr)
    for i in range(n):
        shape = dims_from(shapes[i], rows[op].name)
        set_shape(&outs[i], &shape, t if specs[op].out_type[i] == ANY else specs[op].out_type[i])
    run(op, ins, n_in, outs, n, attr, n_attr, work)
    results = tuple([wrap(&outs[i]) for i in range(n)])
    node = node_for(op, operands, attrs)
    if node is not None:
        attach(results[0], node)
        for i in range(1, n):
            save_one(&node.saved[node.n_saved - n + i], results[i], True)
    return results


cdef int call_into(int op, Tensor x, tuple operands, tuple attrs) except -1:
    """Runs an in-place index row: x is operand 0 and the output."""
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData out
    cdef int64_t attr[MAX_ATTRS]
    cdef Node node
    cdef Tensor other
    cdef int i, n_in, n_attr = attributes(attrs, attr)
    operands = (x,) + operands
    check_writable(x, rows[op].name)
    for i in range(1, len(operands)):
        other = operands[i]
        if overlaps_partially(x.d, other.d) or other.d.storage == x.d.storage:
            operands = operands[:i] + (map1(COPY_OP, other),) + operands[i + 1:]
    n_in = operands_from(op, operands, 0, ins)
    node = node_for(op, operands, attrs)
    out = x.d
    run(op, ins, n_in, &out, 1, attr, n_attr, numel(x.d))
    written(x, node)
    return 0


cdef Tensor need_tensor(object x, str op):
    if isinstance(x, Stale):
        x.refuse()
    if not is_tensor(x):
        raise DTypeError(f"{op}: expected a Tensor, got {type(x).__name__}")
    return <Tensor>x
