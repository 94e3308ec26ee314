# backward.pxi: the walk back over recorded nodes, newest first.

from libcpp.queue cimport priority_queue


@cython.final
cdef class Walk:
    """One backward pass: nodes are visited newest first, so each has all of its output gradients when it is reached.

    With `targets`, edges, only nodes among `through` (ids) are visited, and the gradients that arrive at targets kept.
    """
    cdef readonly dict leaves  # by id: leaf and gradient so far
    cdef dict pending          # by sequence number: the node and the gradients of its outputs so far
    cdef dict stops            # by id of a target: the gradients that arrived
    cdef set through
    cdef priority_queue[int64_t] newest

    def __init__(self, set through=None, targets=()):
        self.leaves, self.pending = {}, {}
        self.stops = {id(edge): None for edge in targets}
        self.through = through

    def run(self, list roots, bint retain_graph):
        """Walks from (edge, output of the node there, gradient) to the leaves, or the targets."""
        cdef int64_t seq
        for edge, output, grad in roots:
            self.send(edge, output, grad)
        while not self.newest.empty():
            seq = self.newest.top()
            self.newest.pop()
            node, grads = self.pending.pop(seq)
            self.visit(<Node>node, <list>grads, retain_graph)

    def arrived(self, edge, int output):
        """The gradient that arrived at a target, or None."""
        if type(edge) is not Node:
            return self.leaves[id(edge)][1] if id(edge) in self.leaves else None
        grads = self.stops[id(edge)]
        return None if grads is None else grads[output]

    cdef int visit(self, Node node, list grads, bint retain_graph) except -1:
        cdef tuple results
        cdef object edge, grad
        cdef int i
        if self.through is not None:
            if id(node) in self.stops:
                self.stops[id(node)] = grads
            if id(node) not in self.through:
                return 0
        results = node.apply(F, grads)
        for i in range(len(node.edges)):
            edge, grad = node.edges[i], results[i]
            if edge is not None and grad is not None:
                if not is_tensor(grad) or not alike(&(<Tensor>grad).d, &node.saved[i].d):
                    grad = fitted(node, i, grad)
                self.send(edge, node.saved[i].edge_output, grad)
        if not retain_graph:
            node.release()
        return 0

    cdef int send(self, object edge, int output, object grad) except -1:
        """Adds `grad` to what has arrived at the end of an edge."""
        cdef list grads
        if self.through is not None and id(edge) not in self.through and id(edge) not in self.stops:
            return 0
        if type(edge) is not Node:
            arrived = self.leaves.get(id(edge))
            self.leaves[id(edge)] = [edge, grad if arrived is None else add(arrived[1], grad)]
            return 0
        entry = self.pending.get((<Node>edge).seq)
        if entry is None:
            grads = [None] * (<Node>edge).n_outputs
            self.pending[(<Node>edge).seq] = (edge, grads)
            self.newest.push((<Node>edge).seq)
        else:
            grads = <list>(<tuple>entry)[1]
        grads[output] = grad if grads[output] is None else add(grads[output], grad)
        return 0


cdef inline bint alike(const TensorData* a, const TensorData* b) noexcept:
    """Whether shape and dtype are the same."""
    return dtype_id(a.dtype) == dtype_id(b.dtype) and same_shape(a, b)


cdef Tensor fitted(Node node, int i, object grad):
    """The gradient of argument i in its shape, that is with broadcasting undone, and in its dtype."""
    cdef const TensorData* like = &node.saved[i].d
    cdef int t = dtype_id(like.dtype)
    if not is_tensor(grad) or not stretches_to(like, &(<Tensor>grad).d):
        raise (ShapeError if is_tensor(grad) else DTypeError)(
            f"{node.name} backward: the gradient of argument {i} must be a {DTYPES[t].name}{list(shape_tuple(like))} "
            f"or None, got {describe(grad)}")
    return cast(sum_to(grad, shape_tuple(like)), t)


cdef bint stretches_to(const TensorData* a, const TensorData* b) noexcept:
    """Whether a's shape is b's, or broadcasting makes it so."""
    cdef int i, lead = b.rank - a.rank
    for i in range(a.rank):
        if lead < 0 or a.shape[i] != b.shape[lead + i] and a.shape[i] != 1:
            return False
    return True
