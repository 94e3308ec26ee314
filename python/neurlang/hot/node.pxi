# node.pxi: what an executed op leaves behind for backward: its operands, its edges, its rule.

cdef extern from "eager/mode.hpp" namespace "nl":
    bint grad_enabled()
    bint switch_grad "nl::set_grad_enabled"(bint)


def is_grad_enabled():
    """Whether operations on this thread are recorded for backward.

    >>> with neurlang.no_grad():
    ...     neurlang.is_grad_enabled()
    False
    """
    return grad_enabled()


def set_grad_enabled(bint mode):
    """Turns the recording of gradients on this thread on or off; returns what it was."""
    return switch_grad(mode)


cdef struct Saved:
    TensorData d        # storage null: only shape and dtype were kept
    uint32_t version
    bint is_number
    uint64_t bits
    int edge_output     # which output of the node at the edge's end this operand is


@cython.freelist(16)
cdef class Geometry:
    """An operand whose values the gradient rule does not read: shape, dtype, and whether its gradient is wanted."""
    cdef readonly tuple shape
    cdef readonly object dtype
    cdef readonly bint requires_grad

    @property
    def ndim(self):
        return len(self.shape)


class Stale(Geometry):
    """An operand that was overwritten since it was saved; an error only if the rule computes with it."""

    def refuse(self, *others):
        raise RuntimeError(self.message)

    def __getattr__(self, name):
        self.refuse()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __pow__ = __rpow__ = __neg__ = __matmul__ = __rmatmul__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = refuse
    __hash__ = None


cdef Geometry geometry_of(type kind, const TensorData* d, bint requires_grad):
    """What is left of an operand without its values."""
    cdef Geometry geometry = kind.__new__(kind)
    geometry.shape = shape_tuple(d)
    geometry.dtype = DTYPES[dtype_id(d.dtype)]
    geometry.requires_grad = requires_grad
    return geometry


cdef int64_t next_sequence = 0


@cython.trashcan(True)
@cython.freelist(256)
cdef class Node:
    """One recorded operation of the gradient graph.

    `edges[i]` is where the gradient of operand i flows: None, a `Node` (to one of its outputs) or a leaf Tensor.
    """
    cdef readonly int op              # row number, -1 for rules of their own
    cdef readonly object rule         # callable(F, *output gradients) -> gradients, when op is -1
    cdef readonly tuple edges
    cdef readonly tuple attrs
    cdef readonly int64_t seq
    cdef readonly int n_outputs
    cdef str rule_name
    cdef Saved* saved                 # the operands, then (of a row) the outputs
    cdef int n_saved
    cdef bint freed
    cdef object __weakref__

    def __dealloc__(self):
        self._free()
        if self.saved != NULL:
            nl_free(self.saved, self.n_saved * sizeof(Saved))

    cdef void _free(self):
        cdef int i
        if self.freed or self.saved == NULL:
            return
        self.freed = True
        for i in range(self.n_saved):
            if self.saved[i].d.storage != NULL:
                self.saved[i].d.storage.release()

    def release(self):
        """Frees the saved tensors; a second backward through this node is an error."""
        self._free()
        if self.op < 0:
            self.rule = None

    @property
    def name(self):
        return rows[self.op].name if self.op >= 0 else self.rule_name

    def __repr__(self):
        return f"<{self.name} backward>"

    cdef object _unpack(self, int i, Node owner):
        """Operand i (or, past the operands, output) as the gradient rule wants it."""
        cdef Saved* s = &self.saved[i]
        cdef Tensor t
        if s.is_number:
            return bits_to_number(s.bits, dtype_id(s.d.dtype))
        if s.d.storage == NULL:
            return geometry_of(Geometry, &s.d, self.edges[i] is not None)
        edge = owner if owner is not None else self.edges[i] if i < <int>len(self.edges) else None
        if s.d.storage.version != s.version:
            stale = geometry_of(Stale, &s.d, edge is not None)
            stale.message = (
                f"{self.name} backward: a tensor needed for the gradient, "
                f"{DTYPES[dtype_id(s.d.dtype)].name}{list(shape_tuple(&s.d))}, was modified in place "
                f"(it is at version {s.d.storage.version}, {s.version} was saved); clone it before the in-place operation")
            return stale
        if isinstance(edge, Tensor):
            return edge
        t = wrap(&s.d)
        s.d.storage.retain()
        if edge is not None:
            t.node = edge
            t.node_output = 0 if owner is not None else s.edge_output
        return t

    cdef object apply(self, object F, list grads):
        """The gradients of the operands (some None), given those of the outputs."""
        cdef int i, n_in
        cdef list args
        if self.op < 0:
            if self.rule is None:
                raise RuntimeError(FREED.format(self.name))
            return tuple(self.rule(F, *grads))
        if self.freed:
            raise RuntimeError(FREED.format(self.name))
        n_in = len(self.edges)
        args = [F, grads[0]]
        for i in range(n_in):
            args.append(self._unpack(i, None))
        if specs[self.op].saves_out:
            outs = [self._unpack(n_in + i, self if i == 0 else None) for i in range(specs[self.op].n_out)]
            args.append(outs[0] if len(outs) == 1 else tuple(outs))
        if self.attrs:
            args.extend(self.attrs)
        return tuple(rows[self.op].grad(*args))


cdef str FREED = ("{} backward: the saved tensors were freed by an earlier backward; "
                  "pass retain_graph=True to the first one")


cdef inline bint wants_grad(Tensor t) except -1:
    """Whether gradients flow to t; a view of a tensor that was since written through an alias is re-derived first."""
    if t.base is not None and t.base_writes != t.base.writes:
        refresh_view(t)
    return t.leaf_grad or t.node is not None


cdef object edge_of(object x):
    """Where the gradient of `x` flows: a Node, a leaf, or nowhere."""
    if not is_tensor(x) or not wants_grad(<Tensor>x):
        return None
    return x if (<Tensor>x).node is None else (<Tensor>x).node


cdef bint reads(int op, int i, tuple operands) except -1:
    """Whether the row's gradient rule will read the values of operand i."""
    cdef const OpSpec* s = &specs[op]
    cdef ReadBy by = s.read_by[i if i < s.n_in else s.n_in - 1]
    cdef int j
    if by != GRADIENTS_OF_OTHERS:
        return by == ANY_GRADIENT
    for j in range(len(operands)):
        if j != i and is_tensor(operands[j]) and wants_grad(<Tensor>operands[j]):
            return True
    return False


cdef Node new_node(int op, tuple operands, int n_outputs):
    """A node whose operands' shapes are kept, and where a row's gradient rule reads them, their values."""
    cdef Node node = Node.__new__(Node)
    cdef int n = len(operands), i
    global next_sequence
    node.op = op
    node.n_outputs = n_outputs
    node.n_saved = n + (specs[op].n_out if op >= 0 else 0)
    node.saved = <Saved*>nl_alloc(node.n_saved * sizeof(Saved))
    memset(node.saved, 0, node.n_saved * sizeof(Saved))
    for i in range(n):
        if is_tensor(operands[i]):
            save_one(&node.saved[i], <Tensor>operands[i], op >= 0 and reads(op, i, operands))
            node.saved[i].edge_output = (<Tensor>operands[i]).node_output
        elif op >= 0:
            node.saved[i].is_number = True
            node.saved[i].d.dtype = as_dtype(F64)
            node.saved[i].bits = scalar_bits(float(operands[i]), F64)
    node.edges = edges_of(operands)
    next_sequence += 1
    node.seq = next_sequence
    return node


cdef tuple edges_of(tuple operands):
    if len(operands) == 1:
        return (edge_of(operands[0]),)
    if len(operands) == 2:
        return (edge_of(operands[0]), edge_of(operands[1]))
    return tuple([edge_of(x) for x in operands])


cdef void save_one(Saved* s, Tensor t, bint values):
    s.d = t.d
    s.is_number = False
    if values:
        t.d.storage.retain()
        s.version = t.d.storage.version
    else:
        s.d.storage = NULL


cdef Node row_node(int op, tuple operands, tuple attrs):
    """The node of a table row, which keeps what the rule reads; made before an in-place op writes."""
    cdef Node node = new_node(op, operands, 1)
    node.attrs = attrs
    return node


cdef void attach(Tensor out, Node node):
    """Makes `out` the result of `node`."""
    if specs[node.op].saves_out:
        save_one(&node.saved[node.n_saved - specs[node.op].n_out], out, True)
    set_history(out, node, 0)


cdef Node rule_node(str name, object rule, tuple operands, int n_outputs):
    """The node of an operation that is no row: `rule(F, *output gradients) -> gradients`."""
    cdef Node node = new_node(-1, operands, n_outputs)
    node.rule_name = name
    node.rule = rule
    return node


cdef inline void set_history(Tensor t, Node node, int output):
    t.node = node
    t.node_output = output
    t.leaf_grad = False


def python_node(str name, rule, tuple operands, tuple outs, tuple written=()):
    """Connects `outs` to `operands` through `rule(F, *output gradients) -> gradients`; `written` are both of them."""
    cdef Node node
    cdef Tensor x
    cdef int i
    for x in written:
        check_writable(x, name)
    node = rule_node(name, rule, operands, len(outs))
    for i in range(len(outs)):
        set_history(outs[i], node, i)
    for x in written:
        if x.base is not None:
            rebase(x)
    return node


def result_of(Node node, int output, Tensor values):
    """The memory of `values` as result number `output` of `node`."""
    cdef Tensor t = alias(values)
    set_history(t, node, output)
    return t


cdef bint any_wants_grad(tuple operands) except -1:
    for x in operands:
        if isinstance(x, Tensor) and wants_grad(<Tensor>x):
            return True
    return False


def take_gradient(list entry):
    """The last of `entry` as a `.grad` of its own: itself where nothing else can see its memory, else a copy.

    It may be another leaf's gradient too, or the caller's.
    """
    cdef Tensor grad = entry.pop()
    if (type(grad) is Tensor and (<PyObject*>grad).ob_refcnt == 1 and grad.node is None and is_dense_owner(&grad.d)):
        return grad
    return map1(COPY_OP, grad)


cdef inline bint is_dense_owner(const TensorData* d):
    """Whether the elements fill a storage, row by row, that nobody else refers to: no tensor, node, array or tape."""
    return (d.storage.refs.load() == 1 and d.storage.flags == 0 and is_contiguous(d[0])
            and d.storage.bytes == numel(d[0]) * itemsize(d.dtype))


# ---- writes into views: the base's history goes through the view, other views follow ----

cdef int refresh_view(Tensor v) except -1:
    """Re-derives the history of view `v` from its base, which was written through another alias."""
    cdef Tensor base = v.base
    cdef int64_t low, high, base_low, base_high
    v.base_writes = base.writes
    if not wants_grad(base):
        v.node = None
        return 0
    extent(v.d, &low, &high)
    extent(base.d, &base_low, &base_high)
    low, room = py.min(low, base_low), py.max(high, base_high) - py.min(low, base_low)
    shape, strides, offset = shape_tuple(&v.d), stride_tuple(&v.d), v.d.offset - low
    base_shape, base_strides, base_offset = shape_tuple(&base.d), stride_tuple(&base.d), base.d.offset - low
    overlaps = overlaps_itself(v.d)

    def rule(F, g):
        memory = F.zeros(room, dtype=g.dtype)  # from the lowest to the highest element of both
        if overlaps:
            places = F.arange(room).as_strided(shape, strides, offset)
            memory = F.index_add(memory, 0, places.reshape(-1), g.reshape(-1))
        else:
            memory.as_strided(shape, strides, offset).copy_(g)
        return (memory.as_strided(base_shape, base_strides, base_offset),)

    python_node("view", rule, (base,), (v,))
    return 0


cdef Node overwritten(Tensor x):
    """The history of x after a write that nothing flows through: zeros to what it was."""
    shape = shape_tuple(&x.d)
    return python_node("overwrite", lambda F, g: (F.zeros(shape, dtype=g.dtype),), (x,), (x,))


cdef int rebase(Tensor v) except -1:
    """After an in-place write gave view `v` a new history, the base becomes its old self with v's region replaced."""
    cdef Tensor base = v.base
    shape, strides, offset = shape_tuple(&v.d), stride_tuple(&v.d), v.d.offset - base.d.offset
    if not is_contiguous(base.d):
        raise RuntimeError("an in-place write through a view of a non-contiguous tensor cannot be differentiated; "
                           "write to a contiguous copy")

    def rule(F, g):
        region = g.contiguous().as_strided(shape, strides, offset).clone()
        rest = g.clone()
        rest.as_strided(shape, strides, offset).fill_(0)
        return rest, region

    python_node("copy_slices", rule, (base, v), (base,))
    base.writes += 1
    v.base_writes = base.writes
    return 0
