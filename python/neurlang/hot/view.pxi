# view.pxi: tensors that share storage. Views are made at once, also inside a trace; only element work is deferred.

cdef Tensor alias(Tensor x):
    """Another Tensor over the same elements, without history."""
    x.d.storage.retain()
    return wrap(&x.d)


cdef inline Tensor base_of(Tensor x):
    """What a view of x is a view of: the tensor whose history its own one follows."""
    return x if x.base is None or x.leaf_grad else x.base


cdef int link(Tensor v, Tensor x, str name, object rule) except -1:
    """Makes v a view of x for autograd; `rule(F, g)` maps the gradient of v to x's shape."""
    if not grad_enabled():
        return 0
    v.base = base_of(x)
    v.base_writes = v.base.writes
    if wants_grad(x):
        python_node(name, rule, (x,), (v,))
    return 0


cdef Tensor view_reshape(Tensor x, object shape, str op):
    """x with another shape: a view where the strides allow, else a copy."""
    cdef int64_t wanted[MAX_RANK]
    cdef int64_t strides[MAX_RANK]
    cdef int n = sizes_from(shape, op, wanted), i
    cdef Dims old = dims_of(&x.d), new
    cdef Tensor v
    new = shape_reshape(op.encode(), old, wanted, n)
    if not reshape_strides(old, x.d.strides, new, strides):
        if op == "view":
            raise ShapeError(f"view: shape {tuple(shape)} is not a view of the {describe(x)} with strides "
                             f"{stride_tuple(&x.d)}; use reshape")
        x = map1(OP["copy"], x)
        reshape_strides(old, x.d.strides, new, strides)
    v = alias(x)
    v.d.rank = new.rank
    for i in range(new.rank):
        v.d.shape[i] = new.d[i]
        v.d.strides[i] = strides[i]
    old_shape = shape_tuple(&x.d)
    link(v, x, op, lambda F, g: (g.reshape(old_shape),))
    return v


cdef Tensor with_axis(Tensor x):
    """x, or the vector of its one element where it is 0-d: what an axis argument of 0 or -1 then means."""
    return x if x.d.rank else view_reshape(x, (1,), "reshape")


cdef Tensor view_permute(Tensor x, object dims):
    cdef int64_t wanted[MAX_RANK]
    cdef int i, axis, n = sizes_from(dims, "permute", wanted)
    cdef Tensor v
    shape_permute("permute", dims_of(&x.d), wanted, n)
    axes = [axis_of("permute", wanted[i], n) for i in range(n)]
    v = alias(x)
    for i in range(n):
        axis = axes[i]
        v.d.shape[i] = x.d.shape[axis]
        v.d.strides[i] = x.d.strides[axis]
    inverse = tuple([axes.index(i) for i in range(n)])
    link(v, x, "permute", lambda F, g: (g.permute(inverse),))
    return v


cdef Tensor view_expand(Tensor x, object shape):
    cdef int64_t wanted[MAX_RANK]
    cdef int n = sizes_from(shape, "expand", wanted), i, lead
    cdef Dims old = dims_of(&x.d), new
    cdef Tensor v
    new = shape_expand("expand", old, wanted, n)
    v = alias(x)
    lead = new.rank - x.d.rank
    v.d.rank = new.rank
    for i in range(new.rank):
        v.d.shape[i] = new.d[i]
        v.d.strides[i] = 0 if i < lead or (x.d.shape[i - lead] == 1 and new.d[i] != 1) else x.d.strides[i - lead]
    old_shape = shape_tuple(&x.d)
    link(v, x, "expand", lambda F, g: (F.sum_to(g, old_shape),))
    return v


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


cdef Tensor view_slice(Tensor x, int axis, int64_t start, int64_t step, int64_t count):
    """Elements start, start + step, … (count of them) along one axis; no history."""
    cdef Tensor v = alias(x)
    if count > 0:
        v.d.offset += start * x.d.strides[axis]
    v.d.shape[axis] = count
    v.d.strides[axis] = x.d.strides[axis] * step
    return v


cdef Tensor narrow_view(Tensor x, int axis, int64_t start, int64_t step, int64_t count):
    """`view_slice` with history."""
    cdef Tensor v = view_slice(x, axis, start, step, count)
    shape = shape_tuple(&x.d)

    def rule(F, g):
        z = F.zeros(shape, dtype=g.dtype)
        slice_axis(z, axis, start, step, count).copy_(g)
        return (z,)

    link(v, x, "slice", rule)
    return v


def slice_axis(Tensor x, int axis, int64_t start, int64_t step, int64_t count):
    """The view that `narrow_view` made, of another tensor of the same shape."""
    return narrow_view(x, axis, start, step, count)


cdef Tensor drop_axis(Tensor x, int axis):
    """x without `axis`, whose extent is 1."""
    cdef list shape = list(shape_tuple(&x.d))
    del shape[axis]
    return view_reshape(x, shape, "reshape")


cdef Tensor view_select(Tensor x, int axis, int64_t index):
    return drop_axis(narrow_view(x, axis, index, 1, 1), axis)


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
        v = view_slice(t, axis, at, 1, size)
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
            copy_into(view_slice(out, axis, at, 1, part.d.shape[axis]), part)
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
