# create.pxi: tensors from sizes, numbers, random streams and NumPy.

cdef class device:
    """Where a tensor's memory is: `neurlang.device("cpu")`, the only one here, so its `index` is None.

    It equals its name, which is also its `type`.

    >>> cpu = neurlang.device("cpu")
    >>> cpu.type, cpu.index
    ('cpu', None)
    >>> neurlang.zeros(2).device == neurlang.device("cpu")
    True
    """
    cdef readonly str type

    def __init__(self, type):
        check_device(type)
        self.type = "cpu"

    @property
    def index(self):
        """The number among several of one type; None, as there is one."""
        return None

    def __eq__(self, other):
        return isinstance(other, (device, str)) and str(other) in ("cpu", "cpu:0")

    def __hash__(self):
        return hash("cpu")

    def __str__(self):
        return self.type

    def __repr__(self):
        return f"device(type={self.type!r})"

    def __reduce__(self):
        return device, ("cpu",)


cdef device CPU = device("cpu")
cdef object DEVICE = device  # where an argument has its name


cdef int check_device(object device) except -1:
    if device is None or str(device) in ("cpu", "cpu:0"):
        return 0
    raise ValueError(f"device {device!r} is not available; this build computes on 'cpu'")


cdef object number(object x):
    """A Python number; a tensor of one element gives its value."""
    return x.item() if is_tensor(x) else as_operand(x)


cdef Tensor source(int op, Dims shape, int t, tuple scalars, tuple scalar_types):
    """A map row without tensor operands."""
    cdef Operand ins[MAX_OPERANDS]
    cdef TensorData out
    cdef int i, w = dtype_id(wide(as_dtype(t)))
    if w != t and not specs[op].direct:
        return cast(source(op, shape, w, scalars, tuple([w if k == t else k for k in scalar_types])), t)
    for i in range(len(scalars)):
        operand(&ins[i], number(scalars[i]), scalar_types[i])
    set_shape(&out, &shape, t)
    run(op, ins, len(scalars), &out, 1, NULL, 0, numel(out))
    return wrap(&out)


cdef Tensor with_grad(Tensor x, bint requires_grad):
    if requires_grad:
        x.requires_grad = True
    return x


def empty(*size, dtype=None, device=None, bint requires_grad=False):
    """A tensor with unspecified contents.

    >>> neurlang.empty(2, 3).shape
    (2, 3)
    """
    cdef Dims shape = dims_from(varargs(size), "empty")
    check_device(device)
    return with_grad(source(OP["empty"], shape, dtype_arg(dtype, default_float), (), ()), requires_grad)


def full(size, fill_value, *, dtype=None, device=None, bint requires_grad=False):
    """A tensor filled with one value; the dtype is the value's (float: the default dtype, int: int64, bool).

    An integer dtype takes the number rounded towards zero; OverflowError where it cannot hold it (PyTorch wraps it).

    >>> neurlang.full((2,), 7).tolist()
    [7, 7]
    """
    cdef Dims shape = dims_from(size, "full")
    cdef int t
    check_device(device)
    if is_tensor(fill_value):
        fill_value = cast(fill_value, dtype_arg(dtype, dtype_id((<Tensor>fill_value).d.dtype)))
        return with_grad(map1(COPY_OP, view_expand(fill_value, dims_tuple(&shape))), requires_grad)
    t = dtype_arg(dtype, scalar_dtype(fill_value))
    return with_grad(source(OP["full"], shape, t, (fill_value,), (t,)), requires_grad)


def zeros(*size, dtype=None, device=None, bint requires_grad=False):
    """A tensor of zeros.

    >>> neurlang.zeros(2, dtype=neurlang.int64).tolist()
    [0, 0]
    """
    return full(varargs(size), 0, dtype=DTYPES[dtype_arg(dtype, default_float)], device=device,
                requires_grad=requires_grad)


def ones(*size, dtype=None, device=None, bint requires_grad=False):
    """A tensor of ones.

    >>> neurlang.ones(2, dtype=neurlang.int64).tolist()
    [1, 1]
    """
    return full(varargs(size), 1, dtype=DTYPES[dtype_arg(dtype, default_float)], device=device,
                requires_grad=requires_grad)


def empty_like(input, *, dtype=None, device=None, bint requires_grad=False):
    """A tensor of input's shape and dtype with unspecified contents.

    >>> neurlang.empty_like(neurlang.zeros(2, 3)).shape
    (2, 3)
    """
    cdef Tensor x = need_tensor(input, "empty_like")
    return empty(*x.shape, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def zeros_like(input, *, dtype=None, device=None, bint requires_grad=False):
    """Zeros of input's shape and dtype.

    >>> neurlang.zeros_like(neurlang.tensor([1, 2]))
    tensor([0, 0])
    """
    cdef Tensor x = need_tensor(input, "zeros_like")
    return full(x.shape, 0, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def ones_like(input, *, dtype=None, device=None, bint requires_grad=False):
    """Ones of input's shape and dtype.

    >>> neurlang.ones_like(neurlang.tensor([1, 2]), dtype=neurlang.float32)
    tensor([1., 1.])
    """
    cdef Tensor x = need_tensor(input, "ones_like")
    return full(x.shape, 1, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def full_like(input, fill_value, *, dtype=None, device=None, bint requires_grad=False):
    """input's shape and dtype, filled with one value.

    >>> neurlang.full_like(neurlang.tensor([1, 2]), 7)
    tensor([7, 7])
    """
    cdef Tensor x = need_tensor(input, "full_like")
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def arange(start, end=None, step=1, *, dtype=None, device=None, bint requires_grad=False):
    """start, start + step, … up to but not including end; int64 when all three are integers.

    ValueError where one is not finite or step is zero.

    >>> neurlang.arange(2, 8, 3).tolist()
    [2, 5]
    """
    cdef Dims shape
    cdef int t
    check_device(device)
    if end is None:
        start, end = 0, start
    start, end, step = number(start), number(end), number(step)
    if not py.all(isinstance(v, int) or math_isfinite(v) for v in (start, end, step)):
        raise ValueError(f"arange: start={start}, end={end}, step={step} must be finite")
    t = dtype_arg(dtype, I64 if py.all(isinstance(v, int) for v in (start, end, step)) else default_float)
    if not is_float(t):
        start, end, step = int(start), int(end), int(step)
    if step == 0:
        raise ValueError(f"arange: start={start}, end={end}, step={step}: the step must not be zero")
    shape = dims_from((steps_between(start, end, step),), "arange")
    return with_grad(source(OP["arange"], shape, t, (start, step), (t, t)), requires_grad)


cdef object steps_between(object start, object end, object step):
    """How many of start, start + step, … come before end; no number of them fits memory if it is beyond floats."""
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
        return py.max(0, -((start - end) // step))
    count = (end - start) / step
    return py.max(0, math_ceil(count)) if count < 2.0 ** 63 else 1 << 63


def linspace(start, end, steps, *, dtype=None, device=None, bint requires_grad=False):
    """`steps` evenly spaced values from start to end, both included.

    >>> neurlang.linspace(0, 1, 5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    kind = DTYPES[dtype_arg(dtype, default_float)]
    cdef Dims shape = dims_from((steps,), "linspace")
    check_device(device)
    values = np.linspace(float(start), float(end), shape.d[0])
    return with_grad(tensor(values, dtype=kind), requires_grad)


def eye(n, m=None, *, dtype=None, device=None, bint requires_grad=False):
    """Ones on the diagonal, zeros elsewhere.

    n rows and m columns (m left out: n).

    >>> neurlang.eye(2, 3, dtype=neurlang.int64).tolist()
    [[1, 0, 0], [0, 1, 0]]
    """
    rows_, columns = arange(n), arange(n if m is None else m)
    return with_grad((rows_.unsqueeze(1) == columns).to(DTYPES[dtype_arg(dtype, default_float)]), requires_grad)


# ---- random: Philox counters; an element's number depends on seed, draw and row-major index only ----

cdef int64_t random_seed = 0x853C49E6748FEA9B & 0x7FFFFFFFFFFFFFFF
cdef int64_t random_draws = 0


def manual_seed(int64_t seed):
    """Restarts the random stream; the same seed gives the same numbers, traced or not, on any number of threads.

    >>> neurlang.manual_seed(0)
    >>> x = neurlang.rand(3)
    >>> neurlang.manual_seed(0)
    >>> bool((neurlang.rand(3) == x).all())
    True
    """
    global random_seed, random_draws
    random_seed = seed
    random_draws = 0


def get_rng_state():
    """The (seed, draws so far) of the random stream.

    >>> neurlang.manual_seed(7)
    >>> x = neurlang.rand(3)
    >>> neurlang.get_rng_state()
    (7, 1)
    """
    return random_seed, random_draws


def set_rng_state(state):
    """Continues the random stream from a state of `get_rng_state`.

    >>> state = neurlang.get_rng_state()
    >>> x = neurlang.rand(3)
    >>> neurlang.set_rng_state(state)
    >>> bool((neurlang.rand(3) == x).all())
    True
    """
    global random_seed, random_draws
    random_seed, random_draws = state


def next_draw():
    """The seed and the number of a draw that is taken now, as a tensor."""
    global random_draws
    random_draws += 1
    return tensor((random_seed, random_draws - 1), dtype=int64)


def drawn(taken, shape, dtype):
    """The uniform numbers from [0, 1) of a draw that was taken."""
    cdef int t = dtype_arg(dtype, default_float)
    seed, number = taken.tolist()
    return source(OP["uniform"], dims_from(shape, "rand"), t, (seed, number, 0, 1), (I64, I64, t, t))


cdef Tensor draw(str row, Dims shape, int t, object a, object b):
    """Fresh numbers: `uniform` in [a, b), `normal` of mean a and deviation b."""
    global random_draws
    cdef Tensor x
    if row == "uniform" and (t == F16 or t == BF16):  # multiples of half an epsilon, so that none is rounded to 1
        steps = 2048 if t == F16 else 256
        return cast(map1(OP["floor"], draw(row, shape, F32, 0, steps)) * ((b - a) / steps) + a, t)
    if not is_float(t):
        raise DTypeError(f"{row}: random floats need a float dtype, got {DTYPES[t].name}")
    x = source(OP[row], shape, t, (random_seed, random_draws, a, b), (I64, I64, t, t))
    random_draws += 1
    return x


def rand(*size, dtype=None, device=None, bint requires_grad=False):
    """Uniform numbers from [0, 1) (Philox, Salmon et al. 2011); DTypeError for dtypes that are no floats.

    >>> neurlang.rand(2, 3).shape
    (2, 3)
    """
    check_device(device)
    return with_grad(draw("uniform", dims_from(varargs(size), "rand"), dtype_arg(dtype, default_float), 0, 1), requires_grad)


def randn(*size, dtype=None, device=None, bint requires_grad=False):
    """Normal numbers of mean 0 and variance 1 (Philox, Salmon et al. 2011; Box & Muller 1958).

    >>> neurlang.randn(2, 3).shape
    (2, 3)
    """
    check_device(device)
    return with_grad(draw("normal", dims_from(varargs(size), "randn"), dtype_arg(dtype, default_float), 0, 1), requires_grad)


def rand_like(input, *, dtype=None, device=None, bint requires_grad=False):
    """Uniform numbers in input's shape.

    >>> neurlang.rand_like(neurlang.zeros(2, 3)).shape
    (2, 3)
    """
    cdef Tensor x = need_tensor(input, "rand_like")
    return rand(*x.shape, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def randn_like(input, *, dtype=None, device=None, bint requires_grad=False):
    """Normal numbers in input's shape.

    >>> neurlang.randn_like(neurlang.zeros(2, 3)).shape
    (2, 3)
    """
    cdef Tensor x = need_tensor(input, "randn_like")
    return randn(*x.shape, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def bernoulli(input):
    """Ones with the probabilities that input holds, else zeros, in input's shape and dtype.

    DTypeError for dtypes that are no floats.

    >>> neurlang.bernoulli(neurlang.tensor([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """
    cdef Tensor p = need_tensor(input, "bernoulli").detach()
    if not is_float(dtype_id(p.d.dtype)):
        raise DTypeError(f"bernoulli: probabilities are floats, got the {describe(p)}")
    return cast(draw_bools(dims_of(&p.d), p), dtype_id(p.d.dtype))


cdef Tensor draw_bools(Dims shape, object p):
    """Bools, each true with probability p, a number or a tensor of this shape."""
    if not is_tensor(p) and not 0 <= p <= 1:
        raise ValueError(f"bernoulli: a probability lies in [0, 1], got {p}")
    return draw("uniform", shape, F32, 0, 1) < p


def randint(low, high=None, size=None, *, dtype=None, device=None):
    """Integers from [low, high); `randint(high, size)` starts at 0.

    int64 unless `dtype` says otherwise; ValueError where high is not above low.

    >>> x = neurlang.randint(-2, 3, (100,))
    >>> x.dtype, bool((x >= -2).all()), bool((x < 3).all())
    (neurlang.int64, True, True)
    """
    check_device(device)
    if size is None:
        low, high, size = 0, low, high
    if high <= low:
        raise ValueError(f"randint: high must be above low, got [{low}, {high})")
    u = rand(*varargs((size,)), dtype=float64)
    return cast(map1(OP["floor"], u * (high - low) + low), dtype_arg(dtype, I64))


def randperm(n, *, dtype=None, device=None):
    """A random permutation of 0 … n-1.

    int64 unless `dtype` says otherwise.

    >>> sorted(neurlang.randperm(4).tolist())
    [0, 1, 2, 3]
    """
    check_device(device)
    return cast(argsort(draw("uniform", dims_from((n,), "randperm"), F64, 0, 1)), dtype_arg(dtype, I64))


# ---- NumPy ----

cdef void forget_owner(void* owner) noexcept with gil:
    Py_DECREF(<object>owner)


def from_numpy(array):
    """A tensor over the array's memory, without copying; writes to one are seen in the other.

    The dtype must be one of neurlang's, strides whole elements. A read-only array gives a read-only tensor.

    >>> import numpy as np
    >>> array = np.zeros(2)
    >>> x = neurlang.from_numpy(array)
    >>> array[0] = 1
    >>> x.tolist()
    [1.0, 0.0]
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}")
    if array.dtype not in DTYPE_OF_NUMPY:
        raise DTypeError(f"from_numpy: dtype {array.dtype} is not supported; "
                         f"use one of {', '.join(k.name for k in DTYPES)}")
    if array.ndim > MAX_RANK:
        raise ShapeError(f"from_numpy: {array.ndim} axes are more than the {MAX_RANK} supported")
    return over_numpy(array, (<dtype>DTYPE_OF_NUMPY[array.dtype]).id)


def _from_bits(array):
    """A bfloat16 tensor over the memory of a uint16 array that holds its bits."""
    return over_numpy(array, BF16)


def _to_bits(x):
    """A uint16 array over the memory of a bfloat16 tensor, which holds its bits."""
    readable(need_tensor(x, "bits"), "bits are read")
    return numpy_over(x, np.dtype(np.uint16))


cdef Tensor read_as(Tensor x, dtype kind):
    """The memory of x as elements of another dtype, as if it came back from NumPy: no history, versions of its own."""
    readable(x, "view: memory is read as another dtype")
    held, wanted = [np.dtype(np.uint16) if d.numpy is None else d.numpy for d in (x.dtype, kind)]
    try:
        return over_numpy(numpy_over(x, held).view(wanted), kind.id)
    except ValueError:
        raise ShapeError(f"view: the {describe(x)} with strides {stride_tuple(&x.d)} does not hold whole, aligned "
                         f"elements of {kind.name} along its last axis; view a clone()") from None


cdef Tensor over_numpy(object array, int t):
    """A tensor of dtype t over an array's memory."""
    cdef TensorData d
    cdef int64_t lo, hi
    cdef int i
    cdef char* data
    cdef int64_t item
    d.dtype = as_dtype(t)
    d.rank = array.ndim
    d.offset = 0
    for i in range(array.ndim):
        d.shape[i] = array.shape[i]
        if array.strides[i] % array.itemsize:
            raise ValueError("from_numpy: the array's strides are not whole elements; copy it first")
        d.strides[i] = array.strides[i] // array.itemsize
    data = <char*><uintptr_t>array.ctypes.data
    if <uintptr_t>data % array.itemsize:
        raise ValueError("from_numpy: the array is not aligned to its element size; copy it first")
    extent(d, &lo, &hi)
    d.offset = -lo
    item = itemsize(d.dtype)
    Py_INCREF(array)
    try:
        d.storage = Storage.borrow(data + lo * item, (hi - lo) * item,
                                   FOREIGN | (0 if array.flags.writeable else READ_ONLY), forget_owner, <void*>array)
    except BaseException:
        Py_DECREF(array)
        raise
    return wrap(&d)


def tensor(data, *, dtype=None, device=None, bint requires_grad=False):
    """A new tensor with a copy of `data` (numbers, nested sequences, arrays, tensors).

    Python floats become the default dtype, integers int64; arrays and tensors keep theirs.

    >>> neurlang.tensor([[1, 2], [3, 4]]).sum().item()
    10
    """
    cdef Tensor t
    cdef int kind = -1
    check_device(device)
    if is_tensor(data):
        t = (<Tensor>data).detach().clone()
        return with_grad(cast(t, dtype_arg(dtype, dtype_id(t.d.dtype))), requires_grad)
    array = np.array(plain_data(data), order="C")
    if dtype is not None:
        kind = dtype_arg(dtype, F32)
    elif not isinstance(data, (np.ndarray, np.generic)) and array.dtype == np.float64:
        kind = default_float
    if kind >= 0 and kind != BF16:
        array = array.astype(DTYPES[kind].numpy)
    if array.dtype not in DTYPE_OF_NUMPY:
        raise DTypeError(f"tensor: data of dtype {array.dtype} is not supported; "
                         f"use one of {', '.join(k.name for k in DTYPES)}")
    t = own_copy(array)
    return with_grad(cast(t, BF16) if kind == BF16 else t, requires_grad)


cdef Tensor own_copy(object array):
    """A tensor in our own memory with the contents of a C-ordered array."""
    cdef TensorData d
    cdef Dims shape = dims_from(array.shape, "tensor")
    set_shape(&d, &shape, (<dtype>DTYPE_OF_NUMPY[array.dtype]).id)
    d.storage = Storage.allocate(array.nbytes)
    if array.nbytes:
        memcpy(d.storage.data, <void*><uintptr_t>array.ctypes.data, array.nbytes)
    return wrap(&d)


cdef object plain_data(object data, int depth=0):
    """Nested sequences with tensors inside become plain numbers; a list may hold itself."""
    if is_tensor(data):
        return data.tolist()
    if isinstance(data, (list, tuple)):
        if depth == MAX_RANK:
            raise ShapeError(f"tensor: the data is nested deeper than the {MAX_RANK} axes supported")
        return [plain_data(v, depth + 1) for v in data]
    return data


def as_tensor(data, *, dtype=None, device=None):
    """`data` as a tensor, sharing memory where it can.

    >>> x = neurlang.zeros(2)
    >>> neurlang.as_tensor(x) is x, neurlang.as_tensor([1, 2]).dtype
    (True, neurlang.int64)
    """
    check_device(device)
    if is_tensor(data):
        return cast(data, dtype_arg(dtype, dtype_id((<Tensor>data).d.dtype)))
    if isinstance(data, np.ndarray) and data.dtype in DTYPE_OF_NUMPY and data.ndim <= MAX_RANK:
        t = from_numpy(data)
        return cast(t, dtype_arg(dtype, dtype_id((<Tensor>t).d.dtype)))
    return tensor(data, dtype=dtype)


asarray = as_tensor


cdef extern from "numpy/arrayobject.h":
    object new_array "PyArray_New"(PyTypeObject*, int, cnp.npy_intp*, int, cnp.npy_intp*, void*, int, int, PyObject*)


cdef class Loan:
    """Keeps a storage alive, and counted as lent, while a NumPy array looks at it."""
    cdef Storage* storage

    def __dealloc__(self):
        if self.storage != NULL:
            self.storage.exports.fetch_add(-1)
            self.storage.release()


cdef object to_numpy(Tensor x):
    """The tensor's own memory as an array."""
    cdef object kind = DTYPES[dtype_id(x.d.dtype)].numpy
    if kind is None:
        raise TypeError(f"numpy(): NumPy has no dtype for the {describe(x)}; convert it with float()")
    return numpy_over(x, kind)


cdef object numpy_over(Tensor x, object kind):
    """The tensor's own memory as an array of NumPy's dtype `kind`."""
    cdef Loan loan = Loan.__new__(Loan)
    cdef cnp.npy_intp shape[MAX_RANK]
    cdef cnp.npy_intp strides[MAX_RANK]
    cdef int i, flags = cnp.NPY_ARRAY_WRITEABLE
    for i in range(x.d.rank):
        shape[i] = x.d.shape[i]
        strides[i] = x.d.strides[i] * itemsize(x.d.dtype)
    if x.d.storage.flags & READ_ONLY:
        flags = 0
    array = new_array(<PyTypeObject*>np.ndarray, x.d.rank, shape, kind.num, strides,
                      x.d.storage.data + x.d.offset * itemsize(x.d.dtype), 0, flags, NULL)
    x.d.storage.retain()
    x.d.storage.exports.fetch_add(1)
    x.d.storage.loans.fetch_add(1)
    loan.storage = x.d.storage
    cnp.set_array_base(array, loan)
    return array
