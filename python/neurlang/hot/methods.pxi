# methods.pxi: what a Tensor says of itself, its values, gradient and writes; included in the class body.

# ---- what it is ----

@property
def shape(self):
    """The sizes of the axes, a tuple.

    >>> neurlang.zeros(2, 3).shape
    (2, 3)
    """
    return shape_tuple(&self.d)

@property
def dtype(self):
    """The element type.

    >>> neurlang.zeros(2).dtype
    neurlang.float32
    """
    return DTYPES[dtype_id(self.d.dtype)]

@property
def ndim(self):
    """The number of axes.

    >>> neurlang.zeros(2, 3).ndim
    2
    """
    return self.d.rank

@property
def device(self):
    """Where the memory is; always the CPU here.

    >>> neurlang.zeros(2).device
    device(type='cpu')
    """
    return CPU

@property
def nbytes(self):
    """Bytes of the elements, as if they lay densely.

    >>> neurlang.zeros(2, 3).nbytes
    24
    """
    return numel(self.d) * itemsize(self.d.dtype)

@property
def itemsize(self):
    """Bytes of one element.

    >>> neurlang.zeros(2).itemsize
    4
    """
    return itemsize(self.d.dtype)

def element_size(self):
    """Bytes of one element.

    >>> neurlang.zeros(2).element_size()
    4
    """
    return itemsize(self.d.dtype)

def dim(self):
    """The number of axes.

    >>> neurlang.zeros(2, 3).dim()
    2
    """
    return self.d.rank

def size(self, dim=None):
    """The shape, or the extent of one axis.

    >>> neurlang.zeros(2, 3).size(), neurlang.zeros(2, 3).size(-1)
    ((2, 3), 3)
    """
    if dim is None:
        return shape_tuple(&self.d)
    return self.d.shape[own_axis("size", self, dim)]

def numel(self):
    """The number of elements.

    >>> neurlang.zeros(2, 3).numel()
    6
    """
    return numel(self.d)

def stride(self, dim=None):
    """Steps between neighbours along each axis (or one), in elements.

    >>> neurlang.zeros(2, 3).stride(), neurlang.zeros(2, 3).T.stride()
    ((3, 1), (1, 3))
    """
    if dim is None:
        return stride_tuple(&self.d)
    return self.d.strides[own_axis("stride", self, dim)]

def storage_offset(self):
    """The first element's place in the storage, in elements.

    >>> neurlang.arange(4)[1:].storage_offset()
    1
    """
    return self.d.offset

def is_contiguous(self):
    """Whether the elements lie in row-major order without gaps.

    >>> neurlang.zeros(2, 3).is_contiguous(), neurlang.zeros(2, 3).T.is_contiguous()
    (True, False)
    """
    return is_contiguous(self.d)

def is_floating_point(self):
    """Whether the dtype is a float.

    >>> neurlang.zeros(2).is_floating_point(), neurlang.arange(2).is_floating_point()
    (True, False)
    """
    return is_float(dtype_id(self.d.dtype))

def data_ptr(self):
    """The address of the first element.

    Inside a trace this cuts.

    >>> x = neurlang.zeros(4)
    >>> x[1:].data_ptr() - x.data_ptr()
    4
    """
    readable(self, "data_ptr()")
    return <uintptr_t>(self.d.storage.data + self.d.offset * itemsize(self.d.dtype))

@property
def _version(self):
    """How often the storage was written in place."""
    return self.d.storage.version

def __len__(self):
    if self.d.rank == 0:
        raise TypeError("len() of a 0-d tensor")
    return self.d.shape[0]

def __hash__(self):
    return <Py_ssize_t><uintptr_t><void*>self >> 4

def __iter__(self):
    if self.d.rank == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self, 0))

# ---- reading values ----

def item(self):
    """The only element as a Python number. Inside a trace this cuts.

    ValueError where there is not exactly one.

    >>> neurlang.tensor([2.5]).item()
    2.5
    """
    if numel(self.d) != 1:
        raise ValueError(f"item: the {describe(self)} has {numel(self.d)} elements, not one")
    readable(self, "item(): a value is read")
    return read_number(self.d.storage.data + self.d.offset * itemsize(self.d.dtype), dtype_id(self.d.dtype))

def tolist(self):
    """Nested lists of Python numbers (a number for a 0-d tensor).

    Inside a trace this cuts.

    >>> neurlang.tensor([[1, 2], [3, 4]]).tolist()
    [[1, 2], [3, 4]]
    """
    readable(self, "tolist(): values are read")
    return values_of(self).tolist()

def numpy(self, *, bint force=False):
    """The tensor's memory as a NumPy array, without copying; tensors that require grad must be detached first.

    `force=True` takes them as they are. Inside a trace this cuts.

    >>> x = neurlang.zeros(2)
    >>> x.numpy()[0] = 1
    >>> x.tolist()
    [1.0, 0.0]
    """
    if wants_grad(self) and not force:
        raise RuntimeError("numpy(): the tensor requires grad; call detach().numpy()")
    readable(self, "numpy(): values are read")
    return to_numpy(self)

def __array__(self, dtype=None, copy=None):
    readable(self, "numpy(): values are read")
    array = values_of(self)
    if dtype is not None and array.dtype != dtype:
        return array.astype(dtype)
    return array.copy() if copy else array

def __dlpack__(self, **kwargs):
    return self.detach().numpy().__dlpack__(**kwargs)

def __dlpack_device__(self):
    return (1, 0)

def __bool__(self):
    return bool(self.item())

def __int__(self):
    return int(self.item())

def __float__(self):
    return float(self.item())

def __index__(self):
    if is_float(dtype_id(self.d.dtype)) or dtype_id(self.d.dtype) == B8:
        raise TypeError("only integer tensors of one element can be used as an index")
    return int(self.item())

def __repr__(self):
    readable(self, "print: values are read")
    return format_tensor(self)

def __format__(self, str spec):
    return format(self.item(), spec) if self.d.rank == 0 else format(repr(self), spec)

def __contains__(self, x):
    return bool(map2(OP["eq"], self, x).any())

def __reduce__(self):
    readable(self, "numpy(): values are read")
    return rebuild, (values_of(self).copy(), self.leaf_grad, self.dtype)

def __copy__(self):
    return copied(self, alias(self))

def __deepcopy__(self, memo):
    if self.node is not None:
        raise RuntimeError("only leaf tensors can be deep-copied; detach first")
    memo[id(self)] = result = copied(self, map1(COPY_OP, self.detach()))
    return result

# ---- gradients ----

@property
def requires_grad(self):
    """Whether gradients flow to this tensor.

    Only float tensors can (else DTypeError); a result of an operation cannot stop (RuntimeError).

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.requires_grad, (x * 2).requires_grad, x.detach().requires_grad
    (True, True, False)
    """
    return wants_grad(self)

@requires_grad.setter
def requires_grad(self, bint value):
    if value and not is_float(dtype_id(self.d.dtype)):
        raise DTypeError(f"only float tensors can require grad, not {describe(self)}")
    if self.node is not None and not value:
        raise RuntimeError("only leaf tensors can stop requiring grad; use detach()")
    self.leaf_grad = value and self.node is None

def requires_grad_(self, bint requires_grad=True):
    """Sets `requires_grad` in place and returns self.

    >>> neurlang.ones(2).requires_grad_()
    tensor([1., 1.], requires_grad=True)
    """
    self.requires_grad = requires_grad
    return self

@property
def is_leaf(self):
    """Whether the tensor is not the result of a recorded operation.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.is_leaf, (x * 2).is_leaf
    (True, False)
    """
    return not wants_grad(self) or self.node is None

@property
def grad_fn(self):
    """The node that made this tensor, or None.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.grad_fn, (x * 2).grad_fn
    (None, <mul backward>)
    """
    return self.node if wants_grad(self) else None

@property
def output_nr(self):
    """Which output of `grad_fn` this is.

    >>> [part.output_nr for part in neurlang.ones(2, requires_grad=True).split(1)]
    [0, 1]
    """
    return self.node_output

@property
def grad(self):
    """The gradient accumulated by `backward`, or None.

    >>> x = neurlang.tensor(3.0, requires_grad=True)
    >>> (x * x).backward()
    >>> x.grad
    tensor(6.)
    """
    return self.grad_

@grad.setter
def grad(self, value):
    if value is not None and (not is_tensor(value) or not same_shape(&(<Tensor>value).d, &self.d)):
        raise ShapeError(f"grad: a {describe(value)} cannot be the gradient of a {describe(self)}")
    self.grad_ = value

def backward(self, gradient=None, retain_graph=None, bint create_graph=False, inputs=None):
    """Adds d self / d leaf to the `.grad` of every leaf that requires grad, or of `inputs` only; `gradient` defaults to
    1 for one element.

    More elements need `gradient`, of self's shape. The graph is freed unless `retain_graph` or `create_graph` is set; a
    second backward through it is a RuntimeError, as is one where nothing requires grad.

    >>> x = neurlang.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).backward(neurlang.tensor([1.0, 10.0]))
    >>> x.grad.tolist()
    [2.0, 40.0]
    """
    backward_hook(self, gradient, retain_graph, create_graph, inputs)

def detach(self):
    """A view of the same memory without history.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.detach().requires_grad, neurlang.shares_memory(x.detach(), x)
    (False, True)
    """
    return alias(self)

def detach_(self):
    """Forgets the history in place.

    >>> x = neurlang.ones(2, requires_grad=True) * 2
    >>> x.detach_().is_leaf
    True
    """
    self.node = None
    self.base = None
    self.leaf_grad = False
    return self

@property
def data(self):
    """A view of the same memory without history.

    Assigning makes self look at the given tensor's memory.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.data = neurlang.zeros(2)
    >>> x
    tensor([0., 0.], requires_grad=True)
    """
    return alias(self)

@data.setter
def data(self, value):
    cdef Tensor v = need_tensor(value, "data")
    v.d.storage.retain()
    if self.d.storage != NULL:
        self.d.storage.release()
    self.d = v.d

@classmethod
def _wrap(cls, Tensor x):
    """An instance of a subclass over x's memory (for nn.Parameter)."""
    cdef Tensor t = Tensor.__new__(cls)  # not cls.__new__, which a subclass may define through this method
    x.d.storage.retain()
    t.d = x.d
    return t

# ---- writing ----

def copy_(self, src, bint non_blocking=False):
    """Overwrites the elements with those of `src`, broadcast and converted; `non_blocking` means nothing here.

    >>> neurlang.zeros(2, 2).copy_(neurlang.tensor([1, 2])).tolist()
    [[1.0, 2.0], [1.0, 2.0]]
    """
    copy_into(self, src)
    return self

def fill_(self, value):
    """Overwrites every element with one value.

    >>> neurlang.zeros(2).fill_(7).tolist()
    [7.0, 7.0]
    """
    copy_into(self, value)
    return self

def zero_(self):
    """Overwrites every element with 0.

    >>> neurlang.ones(2).zero_().tolist()
    [0.0, 0.0]
    """
    copy_into(self, 0)
    return self

def uniform_(self, a=0, b=1):
    """Overwrites with uniform numbers from [a, b).

    >>> x = neurlang.zeros(100).uniform_(2, 4)
    >>> bool((x >= 2).all()), bool((x < 4).all())
    (True, True)
    """
    copy_into(self, draw("uniform", dims_of(&self.d), dtype_id(self.d.dtype), a, b))
    return self

def normal_(self, mean=0, std=1):
    """Overwrites with normal numbers of the given mean and standard deviation.

    >>> neurlang.zeros(2).normal_(5, 0).tolist()
    [5.0, 5.0]
    """
    copy_into(self, draw("normal", dims_of(&self.d), dtype_id(self.d.dtype), mean, std))
    return self

def bernoulli_(self, p=0.5):
    """Overwrites with ones of probability p (a number, or one for each element), else zeros.

    >>> neurlang.zeros(2).bernoulli_(1).tolist()
    [1.0, 1.0]
    """
    copy_into(self, draw_bools(dims_of(&self.d), p))
    return self

def scatter_add_(self, dim, index, src):
    """self[… index …] += src along `dim`, in row-major order of the index."""
    scatter_add_into(self, dim, index, src)
    return self

def index_add_(self, dim, index, source, *, alpha=1):
    """Adds source's slices, times alpha, to self's slices named by a 1-D index."""
    index_add_into(self, dim, index, source, alpha)
    return self

def new_zeros(self, *size, dtype=None, device=None, bint requires_grad=False):
    """Zeros of self's dtype.

    >>> neurlang.arange(2).new_zeros(3)
    tensor([0, 0, 0])
    """
    return zeros(*size, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

def new_ones(self, *size, dtype=None, device=None, bint requires_grad=False):
    """Ones of self's dtype.

    >>> neurlang.arange(2).new_ones(3)
    tensor([1, 1, 1])
    """
    return ones(*size, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

def new_empty(self, *size, dtype=None, device=None, bint requires_grad=False):
    """Unspecified contents, self's dtype.

    >>> neurlang.arange(2).new_empty(3).dtype
    neurlang.int64
    """
    return empty(*size, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

def new_full(self, size, fill_value, dtype=None, device=None, bint requires_grad=False):
    """One value, self's dtype.

    >>> neurlang.arange(2).new_full((2,), 7)
    tensor([7, 7])
    """
    return full(size, fill_value, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

def new_tensor(self, data, dtype=None, device=None, bint requires_grad=False):
    """A copy of `data` in self's dtype.

    >>> neurlang.arange(2).new_tensor([1.5, 2.5])
    tensor([1, 2])
    """
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)
