# view_methods.pxi: the views of a Tensor, and its elements in other dtypes; included in the class body.

# ---- views ----

def reshape(self, shape=(), second=ABSENT, *more):
    """The same elements in row-major order in another shape, given as sizes or as a tuple of them; one may be -1.

    A view where the strides allow one, else a copy. ShapeError where the numbers of elements differ.

    >>> neurlang.arange(6).reshape(2, -1).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    cdef int64_t wanted[MAX_RANK]
    cdef int n = sizes_given(shape, second, more, "reshape", wanted)
    return reshaped(self, wanted, n, "reshape")

def view(self, shape=(), second=ABSENT, /, *more):
    """`reshape` that never copies; given a dtype, the same memory as its elements, more or fewer along the last axis.

    ShapeError where the strides do not allow a view. Elements of another dtype have no history, and are to each other
    as memory that is shared with NumPy: inside a trace, asking for them cuts.

    >>> x = neurlang.arange(4)
    >>> x.view(2, 2)[0, 0] = 7
    >>> x.tolist()
    [7, 1, 2, 3]
    >>> hex(neurlang.tensor(1.0).view(neurlang.int32).item())
    '0x3f800000'
    """
    cdef int64_t wanted[MAX_RANK]
    cdef int n
    if type(shape) is dtype and second is ABSENT:
        return self.view_as(self) if (<dtype>shape).id == dtype_id(self.d.dtype) else read_as(self, shape)
    n = sizes_given(shape, second, more, "view", wanted)
    return reshaped(self, wanted, n, "view")

def view_as(self, other):
    """`view` in other's shape.

    >>> neurlang.arange(4).view_as(neurlang.zeros(2, 2)).tolist()
    [[0, 1], [2, 3]]
    """
    return view_reshape(self, need_tensor(other, "view_as").shape, "view")

def reshape_as(self, other):
    """`reshape` in other's shape.

    >>> neurlang.arange(4).reshape_as(neurlang.zeros(2, 2)).tolist()
    [[0, 1], [2, 3]]
    """
    return view_reshape(self, need_tensor(other, "reshape_as").shape, "reshape")

def flatten(self, start_dim=0, end_dim=-1):
    """Axes start_dim … end_dim merged into one."""
    if self.d.rank == 0:
        return view_reshape(self, (1,), "flatten")
    cdef int a = axis_of("flatten", start_dim, self.d.rank)
    cdef int b = axis_of("flatten", end_dim, self.d.rank)
    if b < a:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    s = shape_tuple(&self.d)
    merged = 1
    for n in s[a:b + 1]:
        merged *= n
    return view_reshape(self, s[:a] + (merged,) + s[b + 1:], "flatten")

def ravel(self):
    """The elements in row-major order along one axis."""
    return self.flatten()

def unflatten(self, dim, sizes):
    """One axis split into several; one size may be -1.

    >>> neurlang.zeros(2, 6).unflatten(1, (3, -1)).shape
    (2, 3, 2)
    """
    cdef int a = own_axis("unflatten", self, dim)
    s = shape_tuple(&self.d)
    sizes = list(sizes)
    if -1 in sizes:
        known = 1
        for n in sizes:
            known *= n if n != -1 else 1
        if known == 0 or s[a] % known:
            raise ShapeError(f"unflatten: axis {a} of the {describe(self)} does not split into {sizes}")
        sizes[sizes.index(-1)] = s[a] // known
    return view_reshape(self, s[:a] + tuple(sizes) + s[a + 1:], "unflatten")

def permute(self, *dims):
    """The axes in another order."""
    return view_permute(self, varargs(dims))

def transpose(self, dim0, dim1):
    """Two axes exchanged."""
    cdef int a, b
    if self.d.rank == 0:
        return view_permute(self, ())
    a = axis_of("transpose", dim0, self.d.rank)
    b = axis_of("transpose", dim1, self.d.rank)
    return exchanged(self, a, b)

swapaxes = swapdims = transpose

def t(self):
    """The transpose of a matrix (a vector is its own).

    >>> neurlang.tensor([[1, 2], [3, 4]]).t().tolist()
    [[1, 3], [2, 4]]
    """
    if self.d.rank > 2:
        raise ShapeError(f"t: expected at most 2 axes, got the {describe(self)}")
    return reversed_axes(self)

@property
def T(self):
    """The axes reversed.

    >>> neurlang.zeros(2, 3).T.shape
    (3, 2)
    """
    return reversed_axes(self)

@property
def mT(self):
    """The last two axes exchanged.

    >>> neurlang.zeros(2, 3, 4).mT.shape
    (2, 4, 3)
    """
    if self.d.rank < 2:
        raise ShapeError(f"mT: needs at least 2 axes, got the {describe(self)}")
    return exchanged(self, self.d.rank - 2, self.d.rank - 1)

def expand(self, *shape):
    """Axes of extent 1 (and new leading ones) stretched without copying; -1 keeps an axis.

    >>> neurlang.tensor([[1], [2]]).expand(-1, 3).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    return view_expand(self, varargs(shape))

def expand_as(self, other):
    """`expand` to other's shape.

    >>> neurlang.tensor([1, 2]).expand_as(neurlang.zeros(2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    return view_expand(self, need_tensor(other, "expand_as").shape)

def broadcast_to(self, shape):
    """`expand` to a shape."""
    return view_expand(self, tuple(shape))

def squeeze(self, dim=None):
    """Without the axes of extent 1 (all, or those named)."""
    s = shape_tuple(&self.d)
    cdef int axes = axes_of("squeeze", dim, self.d.rank)
    return view_reshape(self, tuple([n for i, n in enumerate(s) if n != 1 or not axes >> i & 1]), "squeeze")

def unsqueeze(self, dim):
    """A new axis of extent 1 at `dim`."""
    cdef int a = axis_of("unsqueeze", dim, self.d.rank + 1)
    s = shape_tuple(&self.d)
    return view_reshape(self, s[:a] + (1,) + s[a:], "unsqueeze")

def narrow(self, dim, start, length):
    """`length` elements from `start` along one axis.

    A view; IndexError where it does not lie within the axis.

    >>> neurlang.arange(5).narrow(0, 1, 3).tolist()
    [1, 2, 3]
    """
    cdef int a = own_axis("narrow", self, dim)
    cdef int64_t at = clip_index(start), n = clip_index(length)
    if at < 0:
        at += self.d.shape[a]
    if at < 0 or n < 0 or n > self.d.shape[a] - at:
        raise IndexError(f"narrow: [{start}, {start}+{length}) is not within axis {a} of the {describe(self)}")
    return cut_axis(self, a, at, 1, n)

def select(self, dim, index):
    """One slice along `dim`, without that axis.

    A view; IndexError where the index is out of range.

    >>> neurlang.tensor([[1, 2], [3, 4]]).select(1, -1).tolist()
    [2, 4]
    """
    cdef int a = own_axis("select", self, dim)
    cdef int64_t n = self.d.shape[a], i = clip_index(index)
    if not -n <= i < n:
        raise IndexError(f"select: index {i} is out of range for axis {a} of the {describe(self)}")
    return view_select(self, a, i + n if i < 0 else i)

def flip(self, *dims):
    """A copy with the order along the axes reversed."""
    cdef Tensor x = self
    cdef int a, axes = axes_of("flip", varargs(dims), self.d.rank)
    for a in range(self.d.rank):
        if axes >> a & 1:
            x = cut_axis(x, a, py.max(0, x.d.shape[a] - 1), -1, x.d.shape[a])
    return map1(COPY_OP, x)

def diagonal(self, offset=0, dim1=0, dim2=1):
    """The diagonal of two axes, as the last axis."""
    cdef int a = own_axis("diagonal", self, dim1), b = own_axis("diagonal", self, dim2), i
    cdef int64_t across = clip_index(offset)
    if a == b:
        raise ShapeError(f"diagonal: axes {dim1} and {dim2} of the {describe(self)} are one")
    length = py.max(0, py.min(self.d.shape[a] + py.min(across, 0), self.d.shape[b] - py.max(across, 0)))
    start = across * self.d.strides[b] if across > 0 else -across * self.d.strides[a]
    others = [i for i in range(self.d.rank) if i != a and i != b]
    shape = [self.d.shape[i] for i in others] + [length]
    strides = [self.d.strides[i] for i in others] + [self.d.strides[a] + self.d.strides[b]]
    return as_strided(self, shape, strides, start if length else 0)

def as_strided(self, size, stride, storage_offset=None):
    """A view with explicit shape, strides and offset, all in elements."""
    return as_strided(self, size, stride, storage_offset)

def split(self, split_size_or_sections, dim=0):
    """Views cut along `dim`."""
    return split(self, split_size_or_sections, dim)

def chunk(self, chunks, dim=0):
    """At most `chunks` views along `dim`."""
    return chunk(self, chunks, dim)

def unbind(self, dim=0):
    """The slices along `dim`."""
    return unbind(self, dim)

def __getitem__(self, key):
    return get_item(self, key)

def __setitem__(self, key, value):
    set_item(self, key, value)

def contiguous(self):
    """self when it is row-major, else a copy that is.

    >>> neurlang.zeros(2, 3).T.contiguous().stride()
    (2, 1)
    """
    return self if is_contiguous(self.d) else map1(COPY_OP, self)

def clone(self):
    """A copy in its own memory; gradients flow through."""
    return map1(COPY_OP, self)

# ---- dtype ----

def to(self, *args, dtype=None, device=None, bint non_blocking=False, bint copy=False):
    """x in another dtype (`to(float64)`, `to(other)`, `to("cpu")`); itself when nothing changes.

    `non_blocking` means nothing here.

    Floats become integers by truncation, saturating; NaN becomes 0.

    >>> neurlang.tensor([1.5, -1.5, 1e30]).to(neurlang.int32).tolist()
    [1, -1, 2147483647]
    """
    for a in args:
        if is_tensor(a):
            dtype = a.dtype
        elif isinstance(a, DEVICE) or isinstance(a, str) and not hasattr(np, a):
            check_device(a)
        else:
            dtype = a
    check_device(device)
    cdef Tensor result = cast(self, dtype_arg(dtype, dtype_id(self.d.dtype)))
    return map1(COPY_OP, self) if copy and result is self else result

def type(self, dtype=None):
    """The dtype's name, or x in another dtype.

    >>> neurlang.arange(2).type(), neurlang.arange(2).type(neurlang.float32)
    ('neurlang.int64', tensor([0., 1.]))
    """
    return repr(self.dtype) if dtype is None else cast(self, dtype_arg(dtype, F32))

def astype(self, dtype, *, bint copy=True):
    """x in another dtype (the Array API's spelling); a copy unless `copy=False`.

    >>> neurlang.arange(2).astype(neurlang.float64).dtype
    neurlang.float64
    """
    return self.to(dtype=dtype, copy=copy)

def type_as(self, other):
    """x in other's dtype.

    >>> neurlang.arange(2).type_as(neurlang.zeros(1)).tolist()
    [0.0, 1.0]
    """
    return cast(self, dtype_id(need_tensor(other, "type_as").d.dtype))

def float(self):
    """x as float32.

    >>> neurlang.arange(2).float().dtype
    neurlang.float32
    """
    return cast(self, F32)

def double(self):
    """x as float64.

    >>> neurlang.arange(2).double().dtype
    neurlang.float64
    """
    return cast(self, F64)

def int(self):
    """x as int32.

    >>> neurlang.tensor([1.5, -1.5]).int().tolist()
    [1, -1]
    """
    return cast(self, I32)

def long(self):
    """x as int64.

    >>> neurlang.tensor([1.5, -1.5]).long().tolist()
    [1, -1]
    """
    return cast(self, I64)

def bool(self):
    """x as bool.

    >>> neurlang.tensor([0, 2]).bool().tolist()
    [False, True]
    """
    return cast(self, B8)

def byte(self):
    """x as uint8.

    >>> neurlang.tensor([1.5, 300.0]).byte().tolist()
    [1, 255]
    """
    return cast(self, U8)

def char(self):
    """x as int8.

    >>> neurlang.tensor([1.5, 300.0]).char().tolist()
    [1, 127]
    """
    return cast(self, I8)

def short(self):
    """x as int16.

    >>> neurlang.tensor([1.5, 300.0]).short().tolist()
    [1, 300]
    """
    return cast(self, I16)

def half(self):
    """x as float16.

    >>> neurlang.tensor([1.0, 1e5]).half().tolist()
    [1.0, inf]
    """
    return cast(self, F16)

def bfloat16(self):
    """x as bfloat16.

    >>> neurlang.tensor([1.0, 1.001]).bfloat16().tolist()
    [1.0, 1.0]
    """
    return cast(self, BF16)

def cpu(self):
    """self: the memory is the CPU's.

    >>> x = neurlang.zeros(2)
    >>> x.cpu() is x
    True
    """
    return self
