# view.pxi: tensors that share storage. Views are made at once, also inside a trace; only element work is deferred.

cdef Tensor alias(Tensor x):
    """Another Tensor over the same elements, without history."""
    x.d.storage.retain()
    return wrap(&x.d)


cdef inline Tensor base_of(Tensor x):
    """What a view of x is a view of: the tensor whose history its own one follows."""
    return x if x.base is None or x.leaf_grad else x.base


cdef inline bint follows(Tensor v, Tensor x) except -1:
    """Makes v a view of x; whether its gradient flows on to x, so that it needs a node."""
    if not grad_enabled():
        return False
    v.base = base_of(x)
    v.base_writes = v.base.writes
    return wants_grad(x)


cdef Tensor view_reshape(Tensor x, object shape, str op):
    """x with another shape: a view where the strides allow, else a copy."""
    cdef int64_t wanted[MAX_RANK]
    cdef int n = sizes_from(shape, op, wanted)
    return reshaped(x, wanted, n, op)


cdef Tensor reshaped(Tensor x, const int64_t* wanted, int n, str op):
    cdef Tensor v = alias(x)
    if not lay_out(PyUnicode_AsUTF8(op), x.d, wanted, n, v.d):
        if op == "view":
            raise ShapeError(f"view: shape {shape_tuple(&v.d)} is not a view of the {describe(x)} with strides "
                             f"{stride_tuple(&x.d)}; use reshape")
        return reshaped(map1(COPY_OP, x), wanted, n, op)
    if follows(v, x):
        set_history(v, rule_node(op, reshaping(dims_of(&x.d)), (x,), 1), 0)
    return v


cdef class Reshaping:
    """The gradient rule of `reshape`."""
    cdef Dims shape

    def __call__(self, F, Tensor g):
        return (reshaped(g, self.shape.d, self.shape.rank, "reshape"),)


cdef Reshaping reshaping(Dims shape):
    cdef Reshaping rule = Reshaping.__new__(Reshaping)
    rule.shape = shape
    return rule


cdef Tensor with_axis(Tensor x):
    """x, or the vector of its one element where it is 0-d: what an axis argument of 0 or -1 then means."""
    return x if x.d.rank else view_reshape(x, (1,), "reshape")


cdef Tensor view_permute(Tensor x, object dims):
    cdef int64_t wanted[MAX_RANK]
    cdef int axes[MAX_RANK]
    cdef int i, n = sizes_from(dims, "permute", wanted)
    shape_permute("permute", dims_of(&x.d), wanted, n)
    for i in range(n):
        axes[i] = <int>(wanted[i] + n if wanted[i] < 0 else wanted[i])
    return permuted(x, axes)


cdef Tensor permuted(Tensor x, const int* axes):
    """x with axis axes[i] in place i."""
    cdef Tensor v = alias(x)
    cdef int i
    for i in range(x.d.rank):
        v.d.shape[i] = x.d.shape[axes[i]]
        v.d.strides[i] = x.d.strides[axes[i]]
    if follows(v, x):
        set_history(v, rule_node("permute", undoing(axes, x.d.rank), (x,), 1), 0)
    return v


cdef class Permutation:
    """The gradient rule of `permute`."""
    cdef int axes[MAX_RANK]

    def __call__(self, F, Tensor g):
        return (permuted(g, self.axes),)


cdef Permutation undoing(const int* axes, int rank):
    cdef Permutation rule = Permutation.__new__(Permutation)
    cdef int i
    for i in range(rank):
        rule.axes[axes[i]] = i
    return rule


cdef Tensor exchanged(Tensor x, int a, int b):
    """x with axes a and b exchanged."""
    cdef int axes[MAX_RANK]
    cdef int i
    for i in range(x.d.rank):
        axes[i] = b if i == a else a if i == b else i
    return permuted(x, axes)


cdef Tensor reversed_axes(Tensor x):
    cdef int axes[MAX_RANK]
    cdef int i
    for i in range(x.d.rank):
        axes[i] = x.d.rank - 1 - i
    return permuted(x, axes)


cdef Tensor view_expand(Tensor x, object shape):
    cdef int64_t wanted[MAX_RANK]
    cdef int n = sizes_from(shape, "expand", wanted)
    return expanded(x, shape_expand("expand", dims_of(&x.d), wanted, n))


cdef Tensor expanded(Tensor x, Dims new):
    """x with its axes of extent 1, and new leading ones, stretched to a shape that was checked."""
    cdef Tensor v = alias(x)
    cdef int i, lead = new.rank - x.d.rank
    v.d.rank = new.rank
    for i in range(new.rank):
        v.d.shape[i] = new.d[i]
        v.d.strides[i] = 0 if i < lead or (x.d.shape[i - lead] == 1 and new.d[i] != 1) else x.d.strides[i - lead]
    if follows(v, x):
        set_history(v, rule_node("expand", undo_expansion, (x,), 1), 0)
    return v


def undo_expansion(F, g):
    """The gradient rule of `expand`: every gradient is summed to its operand's shape where it is sent on."""
    return (g,)


def sum_to(g, tuple shape):
    """g summed over the axes that broadcasting added or stretched, so that its shape becomes `shape`."""
    cdef Tensor t = g
    cdef int lead = t.d.rank - len(shape), i
    if lead == 0 and shape_tuple(&t.d) == shape:
        return g
    stretched = [i for i in range(t.d.rank) if i < lead or (shape[i - lead] == 1 and t.d.shape[i] != 1)]
    if stretched:
        t = reduce1(OP["sum"], t, stretched, True)
    return view_reshape(t, shape, "reshape")


# ---- basic indices ----

cdef enum:
    DROPPED = -1   # as a part's count: an integer, whose axis goes
    INSERTED = -2  # a new axis of extent 1
    MAX_PARTS = 2 * MAX_RANK

cdef struct Part:
    int64_t start, step, count  # elements start, start + step, … (count of them) of the next axis


cdef class Cut:
    """The gradient rule of a basic index: the gradient is laid into zeros, at the places that were taken."""
    cdef Part parts[MAX_PARTS]
    cdef int n
    cdef tuple shape

    def __call__(self, F, g):
        zeros = F.zeros(self.shape, dtype=g.dtype)
        cut(zeros, self.parts, self.n).copy_(g)
        return (zeros,)


cdef Tensor cut(Tensor x, const Part* parts, int n):
    """The view that a basic index takes; axes behind its parts stay whole."""
    cdef Tensor v = alias(x)
    cdef Cut rule
    place_parts(&v.d, &x.d, parts, n)
    if follows(v, x):
        rule = Cut.__new__(Cut)
        memcpy(rule.parts, parts, n * sizeof(Part))
        rule.n = n
        rule.shape = shape_tuple(&x.d)
        set_history(v, rule_node("slice", rule, (x,), 1), 0)
    return v


cdef inline int need_rank(int rank) except -1:
    """What an index gives has at most MAX_RANK axes."""
    if rank > MAX_RANK:
        raise ShapeError(f"index: the result has more than the {MAX_RANK} axes supported")
    return 0


cdef int place_parts(TensorData* v, const TensorData* x, const Part* parts, int n) except -1:
    """Offset, shape and strides of the view."""
    cdef int i, axis = 0, rank = 0
    for i in range(n):
        if parts[i].count == DROPPED:
            v.offset += parts[i].start * x.strides[axis]
            axis += 1
            continue
        need_rank(rank + 1)
        if parts[i].count == INSERTED:
            v.shape[rank] = v.strides[rank] = 1
        else:
            if parts[i].count > 0:
                v.offset += parts[i].start * x.strides[axis]
            v.shape[rank] = parts[i].count
            v.strides[rank] = x.strides[axis] * parts[i].step
            axis += 1
        rank += 1
    need_rank(rank + x.rank - axis)
    for axis in range(axis, x.rank):
        v.shape[rank] = x.shape[axis]
        v.strides[rank] = x.strides[axis]
        rank += 1
    v.rank = rank
    return 0


cdef Tensor cut_axis(Tensor x, int axis, int64_t start, int64_t step, int64_t count):
    """One part for `axis`, whole axes before and behind it."""
    cdef Part parts[MAX_RANK]
    cdef int i
    for i in range(axis):
        parts[i] = Part(0, 1, x.d.shape[i])
    parts[axis] = Part(start, step, count)
    return cut(x, parts, axis + 1)


cdef inline Tensor view_select(Tensor x, int axis, int64_t index):
    return cut_axis(x, axis, index, 1, DROPPED)


cdef Tensor drop_axis(Tensor x, int axis):
    """x without `axis`, whose extent is 1."""
    cdef list shape = list(shape_tuple(&x.d))
    del shape[axis]
    return view_reshape(x, shape, "reshape")


cdef Tensor piece_of(Tensor x, int axis, int64_t start, int64_t count):
    """`count` elements from `start` along one axis; no history."""
    cdef Tensor v = alias(x)
    if count > 0:
        v.d.offset += start * x.d.strides[axis]
    v.d.shape[axis] = count
    return v


def as_strided(input, size, stride, storage_offset=None):
    """A view of input's storage with the given shape, strides and offset in elements (relative to input's own start).

    Raises ShapeError when the view would reach outside the storage.

    >>> neurlang.as_strided(neurlang.arange(4), (3, 2), (1, 1)).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    cdef Tensor t = need_tensor(input, "as_strided"), v
    cdef Dims shape = dims_from(size, "as_strided")
    cdef int i
    if len(stride) != shape.rank:
        raise ShapeError(f"as_strided: {shape.rank} sizes and {len(stride)} strides")
    v = alias(t)
    v.d.rank = shape.rank
    for i in range(shape.rank):
        v.d.shape[i] = shape.d[i]
        v.d.strides[i] = clip_index(stride[i])
    # In Python's integers, which do not overflow.
    start = int(t.d.offset) + (0 if storage_offset is None else clip_index(storage_offset))
    reach = [int(shape.d[i] - 1) * int(v.d.strides[i]) for i in range(shape.rank)] if numel(v.d) else []
    low, high = start + py.sum([n for n in reach if n < 0]), start + py.sum([n for n in reach if n > 0])
    room = v.d.storage.bytes // itemsize(v.d.dtype)
    if low < 0 or high + (1 if numel(v.d) else 0) > room:
        raise ShapeError(f"as_strided: elements {low} to {high} reach outside the storage of {room}")
    v.d.offset = start
    if grad_enabled():
        v.base = base_of(t)
        refresh_view(v)
    return v


cdef tuple varargs(tuple args):
    """f(2, 3) and f((2, 3)) alike."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        return tuple(args[0])
    return args


def split(tensor, split_size_or_sections, dim=0):
    """Views of the tensor cut along `dim` into pieces of one size (the last may be shorter) or of the given sizes.

    ShapeError where the sizes do not add up to the axis.

    >>> [p.shape for p in neurlang.arange(5).split(2)]
    [(2,), (2,), (1,)]
    """
    cdef Tensor t = need_tensor(tensor, "split"), v
    cdef int axis = own_axis("split", t, dim)
    cdef int64_t n = t.d.shape[axis], at = 0
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            raise ShapeError(f"split: the size must be positive, got {size}")
        sizes = [py.min(size, n - i) for i in range(0, n, size)] or [0]
    else:
        sizes = [clip_index(s) for s in split_size_or_sections]
        if py.sum(sizes) != n or py.min(sizes, default=0) < 0:
            raise ShapeError(f"split: sizes {sizes} do not add up to axis {axis} of the {describe(t)}")
    pieces = []
    for size in sizes:
        v = piece_of(t, axis, at, size)
        pieces.append(v)
        at += size
    if grad_enabled():
        for v in pieces:
            v.base = base_of(t)
            v.base_writes = v.base.writes
        if wants_grad(t):
            shapes = [p.shape for p in pieces]
            kind = DTYPES[dtype_id(t.d.dtype)]

            def rule(F, *gs):
                parts = [F.zeros(s, dtype=kind) if g is None else g for g, s in zip(gs, shapes)]
                return (F.cat(parts, axis),)

            python_node("split", rule, (t,), tuple(pieces))
    return tuple(pieces)


def chunk(input, chunks, dim=0):
    """At most `chunks` views of input along `dim`, as equal as they can be.

    >>> neurlang.chunk(neurlang.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    cdef Tensor t = need_tensor(input, "chunk")
    cdef int axis = own_axis("chunk", t, dim)
    if chunks <= 0:
        raise ShapeError(f"chunk: the number of chunks must be positive, got {chunks}")
    return split(t, py.max(1, -(-t.d.shape[axis] // chunks)), axis)


def unbind(input, dim=0):
    """The slices of input along `dim`, without that axis.

    >>> neurlang.unbind(neurlang.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    cdef Tensor t = need_tensor(input, "unbind")
    cdef int axis = own_axis("unbind", t, dim)
    return tuple([drop_axis(p, axis) for p in split(t, 1, axis)]) if t.d.shape[axis] else ()


def cat(tensors, dim=0):
    """The tensors joined along `dim`; other axes must agree (else ShapeError), dtypes are promoted.

    >>> neurlang.cat([neurlang.zeros(1, 2), neurlang.ones(2, 2)]).shape
    (3, 2)
    """
    cdef list parts = [need_tensor(x, "cat") for x in tensors]
    cdef vector[Dims] shapes
    cdef Dims shape
    cdef Tensor part, out
    cdef int axis, t = 0
    cdef int64_t at = 0
    if not parts:
        raise ValueError("cat: no tensors given")
    for part in parts:
        t = larger(t, dtype_id(part.d.dtype))
    parts = [p for p in parts if p.shape != (0,)] or parts[:1]  # as PyTorch: empty 1-d tensors join anything
    for part in parts:
        shapes.push_back(dims_of(&part.d))
    axis = axis_of("cat", dim, shapes[0].rank)
    shape = shape_cat("cat", shapes.data(), <int>shapes.size(), axis)
    was = set_grad_enabled(False)
    try:
        out = empty(*dims_tuple(&shape), dtype=DTYPES[t])
        for part in parts:
            copy_into(piece_of(out, axis, at, part.d.shape[axis]), part)
            at += part.d.shape[axis]
    finally:
        set_grad_enabled(was)
    if was and any_wants_grad(tuple(parts)):
        sizes = [p.shape[axis] for p in parts]
        kinds = [p.dtype for p in parts]
        python_node("cat", lambda F, g: tuple([p.to(k) for p, k in zip(split(g, sizes, axis), kinds)]),
                    tuple(parts), (out,))
    return out


concat = concatenate = cat


def stack(tensors, dim=0):
    """The tensors, all of one shape, joined along a new axis `dim`.

    Raises ShapeError where the shapes differ.

    >>> neurlang.stack([neurlang.tensor([1, 2]), neurlang.tensor([3, 4])], 1).tolist()
    [[1, 3], [2, 4]]
    """
    parts = [need_tensor(t, "stack") for t in tensors]
    if not parts:
        raise ValueError("stack: no tensors given")
    for p in parts:
        if p.shape != parts[0].shape:
            raise ShapeError(f"stack: shapes {parts[0].shape} and {p.shape} differ; all must be equal")
    axis = axis_of("stack", dim, len(parts[0].shape) + 1)
    return cat([p.unsqueeze(axis) for p in parts], axis)
