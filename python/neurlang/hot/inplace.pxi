# inplace.pxi: calls that write an operand: add_ and its like, copies into a tensor, optimiser updates.

cdef int check_writable(Tensor x, str what) except -1:
    if x.d.storage.flags & READ_ONLY:
        raise AliasError(f"{what}: the tensor's memory is read-only; write to a clone()")
    if not is_contiguous(x.d) and overlaps_itself(x.d):
        raise AliasError(f"{what}: several elements of the {describe(x)} share memory (it is expanded); write to a clone()")
    if grad_enabled() and (x.leaf_grad or (x.base is not None and x.base.leaf_grad)):
        raise RuntimeError(f"{what}: a leaf tensor that requires grad cannot be written in place, nor a view of one; "
                           "use no_grad() or detach()")
    return 0


cdef int written(Tensor x, Node node) except -1:
    """Book-keeping after an in-place write of x, whose new history is `node` (None: no gradient was wanted)."""
    if node is not None:
        attach(x, node)
    elif x.node is not None and grad_enabled():
        forget(x)
    if x.base is not None and (node is not None or wants_grad(x.base)) and grad_enabled():
        rebase(x)
    elif x.base is None:
        x.writes += 1
    return 0


cdef int forget(Tensor x) except -1:
    """x was overwritten by what has no history: zeros flow to what it was. A view's base sends them itself."""
    x.node = None if x.base is not None else overwritten(x)
    return 0


cdef Tensor map_into(int op, Tensor x, tuple operands):
    """`x.op_(…)`: x is the first operand and gets the (first) result."""
    cdef const OpSpec* s = &specs[op]
    cdef Operand ins[MAX_OPERANDS]
    cdef Dims shape
    cdef int i, t, out_type
    cdef bint direct
    cdef str what = IN_PLACE_NAME[op]
    check_writable(x, what)
    operands = kept(op, x, (x,) + operands)
    if len(operands) == 2 and stands_in_place(op, x, operands[1], &ins[1]):
        ins[0].tensor = &(<Tensor>operands[0]).d
        return run_into(op, x, ins, operands)
    args = [as_operand(y) for y in operands]
    t = promote(s, args, op)
    out_type = t if s.out_type[0] == ANY else s.out_type[0]
    if category(out_type) > category(dtype_id(x.d.dtype)):
        raise DTypeError(f"{what}: the result is {DTYPES[out_type].name}, which cannot be written to a "
                         f"{describe(x)}; convert it first")
    direct = out_type == dtype_id(x.d.dtype)
    for i in range(1, s.n_in):
        if is_tensor(args[i]) and overlaps_partially(x.d, (<Tensor>args[i]).d):
            direct = False
    shape = broadcast(op, args, s.n_in)
    if not same_dims(&shape, &x.d):
        raise ShapeError(f"{what}: the operands broadcast to {list(dims_tuple(&shape))}, which does not fit the {describe(x)} "
                         "that is written")
    if not direct:
        copy_into(x, map_n(op, args))
        return x
    prepare(op, args, ins)
    return run_into(op, x, ins, tuple(args))


cdef tuple kept(int op, Tensor x, tuple operands):
    """The operands of what overwrites x: copies of those in its memory, where the gradient rule reads them."""
    if not (specs[op].differentiable and grad_enabled() and any_wants_grad(operands)):
        return operands
    return tuple([map1(COPY_OP, y) if is_tensor(y) and (<Tensor>y).d.storage == x.d.storage and reads(op, i, operands)
                  else y for i, y in enumerate(operands)])


cdef Tensor kept_whole(Tensor x):
    """x, or a copy for gradient rules, of what is computed from x before it is overwritten."""
    return map1(COPY_OP, x) if grad_enabled() and wants_grad(x) else x


cdef bint stands_in_place(int op, Tensor x, object y, Operand* second) except -1:
    """Whether `x.op_(y)` can run as it is: no promotion, no broadcasting, no memory half shared. `second` is y then."""
    cdef const OpSpec* s = &specs[op]
    if s.n_in != 2 or s.in_type[1] != ANY or s.out_type[0] != ANY or not computes_in(op, dtype_id(x.d.dtype)):
        return False
    if not stands_beside(op, y, x, second):
        return False
    return second.tensor == NULL or same_shape(second.tensor, &x.d) and not overlaps_partially(x.d, second.tensor[0])


cdef Tensor run_into(int op, Tensor x, const Operand* ins, tuple operands):
    cdef TensorData out = x.d
    cdef Node node = node_for(op, operands, ())
    run(op, ins, specs[op].n_in, &out, 1, NULL, 0, numel(x.d))
    written(x, node)
    return x


cdef bint same_dims(const Dims* a, const TensorData* b):
    cdef int i
    if a.rank != b.rank:
        return False
    for i in range(a.rank):
        if a.d[i] != b.shape[i]:
            return False
    return True


cdef int update_into(int op, tuple operands) except -1:
    """An optimiser row: several operands are overwritten, no gradient flows."""
    cdef const OpSpec* s = &specs[op]
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData outs[MAX_OPERANDS]
    cdef int i, j
    if len(operands) != s.n_in:
        raise TypeError(f"{rows[op].name} takes {s.n_in} operands, got {len(operands)}")
    row = rows[op]
    for j in row.inplace:
        need_tensor(operands[j], row.name)
    args = [as_operand(x) for x in operands]
    for i in range(s.n_in):
        if is_tensor(args[i]) and not same_shape(&(<Tensor>args[i]).d, &(<Tensor>args[0]).d):
            raise ShapeError(f"{rows[op].name}: all tensors must have one shape, got {describe(args[0])} "
                             f"and {describe(args[i])}")
    prepare(op, args, ins)
    for i in range(s.n_out):
        j = row.inplace[i]
        check_writable(<Tensor>args[j], row.name)
        if args[j] is not operands[j]:
            raise DTypeError(f"{row.name}: {describe(operands[j])} cannot be updated in another dtype")
        outs[i] = (<Tensor>args[j]).d
    run(op, ins, s.n_in, outs, s.n_out, NULL, 0, numel((<Tensor>args[0]).d))
    for i in range(s.n_out):
        written(<Tensor>args[row.inplace[i]], None)
    return 0


cdef int copy_into(Tensor x, object value) except -1:
    """x[...] = value, broadcast and converted to x's dtype."""
    cdef Tensor source
    cdef Operand ins[1]
    cdef TensorData out
    cdef Dims shape
    cdef Node node = None
    cdef int op = COPY_OP
    check_writable(x, "copy_")
    if is_tensor(value):
        source = cast(<Tensor>value, dtype_id(x.d.dtype))
        if overlaps_partially(x.d, source.d):
            source = map1(op, source)
        shape = dims_of(&source.d)
        if not can_broadcast(&shape, &x.d):
            raise ShapeError(f"copy_: a {describe(value)} does not broadcast to the {describe(x)} that is written")
        operand(&ins[0], source, 0)
        value = source
    else:
        operand(&ins[0], as_operand(value), dtype_id(x.d.dtype))
    if grad_enabled() and is_tensor(value) and wants_grad(<Tensor>value):
        node = row_node(op, (value,), ())
    out = x.d
    run(op, ins, 1, &out, 1, NULL, 0, numel(x.d))
    written(x, node)
    return 0


cdef bint can_broadcast(const Dims* a, const TensorData* target):
    cdef int i, lead = target.rank - a.rank
    if lead < 0:
        return False
    for i in range(a.rank):
        if a.d[i] != 1 and a.d[i] != target.shape[lead + i]:
            return False
    return True
