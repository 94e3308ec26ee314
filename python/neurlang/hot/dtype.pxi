# dtype.pxi: dtype objects, the op specifications read from the table, and promotion.

cdef class dtype:
    """An element type: `neurlang.float32`, `int64`, `bool` …

    Its fields: `name`; `text`, the name in graphs; `id`, its place in the order of promotion; `itemsize` in bytes;
    `is_floating_point`; `numpy`, NumPy's dtype (None for bfloat16, which NumPy does not have).

    >>> t = neurlang.float32
    >>> t.name, t.text, t.id, t.itemsize, t.is_floating_point, t.numpy
    ('float32', 'f32', 8, 4, True, dtype('float32'))
    """
    cdef readonly int id
    cdef readonly str name
    cdef readonly str text
    cdef readonly int itemsize
    cdef readonly bint is_floating_point
    cdef readonly object numpy

    def __init__(self, int id, object info):
        self.id = id
        self.name = info.name
        self.text = info.text
        self.itemsize = info.itemsize
        self.is_floating_point = info.floating
        self.numpy = np.dtype(info.numpy) if info.name != "bfloat16" else None

    def __repr__(self):
        return f"neurlang.{self.name}"

    def __reduce__(self):
        return f"{self.name}_" if self.id == B8 else self.name


include "dtypes.gen.pxi"

cdef dict DTYPE_OF_NUMPY = {t.numpy: t for t in DTYPES if t.numpy is not None}
cdef dict DTYPE_OF_PYTHON = {bool: bool_, int: int64, float: float32}
cdef dict DTYPE_ID_OF_TEXT = {t.text: t.id for t in DTYPES}
cdef int default_float = F32


cdef int dtype_arg(object t, int otherwise) except -2:
    """The id of a `dtype=` argument: ours, a Python type, or anything NumPy understands."""
    if t is None:
        return otherwise
    if isinstance(t, dtype):
        return (<dtype>t).id
    if t in DTYPE_OF_PYTHON:
        return (<dtype>DTYPE_OF_PYTHON[t]).id
    try:
        return (<dtype>DTYPE_OF_NUMPY[np.dtype(t)]).id
    except (KeyError, TypeError):
        raise DTypeError(f"dtype {t!r} is not supported; use one of {', '.join(d.name for d in DTYPES)}") from None


def set_default_dtype(t):
    """Sets the dtype of float literals and of integers turned to floats: `float32` (at start) or another float.

    Raises DTypeError for other dtypes.

    >>> neurlang.set_default_dtype(neurlang.float64)
    >>> neurlang.tensor(1.5).dtype
    neurlang.float64
    >>> neurlang.set_default_dtype(neurlang.float32)
    """
    global default_float
    cdef int id = dtype_arg(t, F32)
    if not is_float(id):
        raise DTypeError(f"the default dtype must be a float, got {DTYPES[id].name}")
    default_float = id


def get_default_dtype():
    """The dtype of float literals.

    >>> neurlang.get_default_dtype()
    neurlang.float32
    """
    return DTYPES[default_float]


def finfo(type=None):
    """The limits of a float dtype: NumPy's object, or for bfloat16 one with PyTorch's fields: `eps`, `max`, `min` …

    Both have `bits`, `eps`, `max`, `min`, `resolution`, `smallest_normal` and `tiny`.

    >>> float(neurlang.finfo(neurlang.float64).eps), neurlang.finfo(neurlang.bfloat16).eps
    (2.220446049250313e-16, 0.0078125)
    """
    cdef int id = dtype_arg(type, default_float)
    if not is_float(id):
        raise DTypeError(f"finfo: expected a float dtype, got {DTYPES[id].name}; use iinfo")
    return BFLOAT16_LIMITS if id == BF16 else np.finfo(DTYPES[id].numpy)


FloatLimits = namedtuple("FloatLimits", "bits eps max min resolution smallest_normal tiny dtype")
BFLOAT16_LIMITS = FloatLimits(16, 2.0 ** -7, (2 - 2.0 ** -7) * 2.0 ** 127, -(2 - 2.0 ** -7) * 2.0 ** 127, 0.01,
                              2.0 ** -126, 2.0 ** -126, "bfloat16")


def iinfo(type):
    """The limits of an integer dtype, NumPy's object: `max`, `min`, `bits`.

    >>> neurlang.iinfo(neurlang.uint8).max
    255
    """
    cdef int id = dtype_arg(type, I64)
    if is_float(id) or id == B8:
        raise DTypeError(f"iinfo: expected an integer dtype, got {DTYPES[id].name}")
    return np.iinfo(DTYPES[id].numpy)


# ---- op specifications: the table's rows as C numbers ----

cdef enum:
    OVER_ALL = 0
    OVER_NUMBER = 1
    OVER_FLOAT = 2
    OVER_INT = 3
    OVER_INTEGER = 4

cdef enum ReadBy:  # which of its gradients a rule computes from an operand
    NO_GRADIENT
    ANY_GRADIENT
    GRADIENTS_OF_OTHERS

cdef struct OpSpec:
    int n_in
    int n_out
    int in_type[MAX_OPERANDS]
    int out_type[MAX_OPERANDS]
    int over
    bint promote_float
    bint promote_int64
    bint promote_first
    bint direct
    bint differentiable
    bint saves_out
    ReadBy read_by[MAX_OPERANDS]  # of the inputs; a variadic row's last one holds for the rest

cdef OpSpec specs[MAX_OPS]
cdef list rows = []
cdef dict OP = {}  # name -> number


cdef int type_code(str t):
    return ANY if t == "T" else DTYPE_ID_OF_TEXT[t]


cdef ReadBy read_by(str name):
    """What a gradient rule says of an operand by its parameter's name."""
    return NO_GRADIENT if name.startswith("_") else GRADIENTS_OF_OTHERS if name.endswith("_") else ANY_GRADIENT


cdef int add_row(object row) except -1:
    """Reads a row into `specs`; the place in the table is the op's number."""
    cdef int op = len(rows), i
    cdef OpSpec* s
    if op >= MAX_OPS or len(row.in_types) + row.outs > MAX_OPERANDS:
        raise ValueError(f"row {row.name!r}: at most {MAX_OPS} rows of {MAX_OPERANDS} operands and results are possible")
    s = &specs[op]
    s.n_in = len(row.in_types)
    s.n_out = row.outs
    for i in range(s.n_in):
        s.in_type[i] = type_code(row.in_types[i])
    for i in range(s.n_out):
        s.out_type[i] = type_code(row.out_types[i])
    s.over = ("all", "number", "float", "int", "integer").index(row.over)
    s.promote_float = row.promote == "float"
    s.promote_int64 = row.promote == "int64"
    s.promote_first = row.promote == "first"
    s.direct = row.direct
    s.differentiable = row.grad is not None
    if s.differentiable:
        code = row.grad.__code__
        names = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
        s.saves_out = "out" in names or "outs" in names
        for i in range(s.n_in):
            s.read_by[i] = read_by(names[2 + i] if 2 + i < len(names) else "")
    rows.append(row)
    OP[row.name] = op
    op_name_bytes.append(row.name.encode())
    OP_NAME[op] = <bytes>op_name_bytes[op]
    IN_PLACE_NAME.append(row.name + "_")
    return op


cdef const char* OP_NAME[MAX_OPS]
cdef list op_name_bytes = []
cdef list IN_PLACE_NAME = []  # what errors call `x.op_()`

for _row in table.TABLE:
    add_row(_row)

cdef int n_builtin = len(rows)


def adopt_row(row):
    """Learns of a row registered at run time; its function appears here under its name."""
    if row.kind != "map" or row.shape != "broadcast" or row.inplace or row.in_types[0] != "T" or row.outs != 1:
        raise ValueError(f"row {row.name!r}: at run time only elementwise rows with one result, whose first operand "
                         "has the compute dtype, can be registered")
    cdef int op = add_row(row)

    def function(*operands):
        return mapn(op, operands)

    function.__name__ = row.name
    function.__doc__ = f"{row.doc}."
    setattr(F, row.name, function)


table.on_register.append(adopt_row)


cdef inline int category(int t):
    return 0 if t == B8 else (2 if is_float(t) else 1)


cdef bint allowed(int over, int t):
    if over == OVER_ALL:
        return True
    if over == OVER_NUMBER:
        return t != B8
    if over == OVER_FLOAT:
        return is_float(t)
    if over == OVER_INT:
        return not is_float(t)
    return not is_float(t) and t != B8


cdef inline bint is_scalar(object x):
    return isinstance(x, (int, float, np.generic))


cdef tuple OPERANDS = (int, float, np.generic, np.ndarray)


cdef inline bint is_operand(object x):
    """What an operator takes on its other side; tensors are recognised before anything is looked up."""
    return isinstance(x, Tensor) or isinstance(x, OPERANDS)


cdef bint fits(object x, int t) except -1:
    """Whether the integer x is a value of the integer dtype t."""
    cdef int beyond = 0
    cdef int64_t i = PyLong_AsLongLongAndOverflow(x, &beyond)
    if beyond:
        return False
    if t == U8:
        return 0 <= i <= 255
    if t == I8:
        return -128 <= i <= 127
    if t == I16:
        return -32768 <= i <= 32767
    return t != I32 or -2147483648 <= i <= 2147483647


cdef int scalar_dtype(object x) except -2:
    """The dtype a Python number stands for when nothing else decides."""
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, bool):
        return B8
    if isinstance(x, int):
        return I64
    if isinstance(x, float):
        return default_float
    raise DTypeError(f"expected a Tensor or a real number, got {type(x).__name__}")


cdef uint64_t scalar_bits(object x, int t) except? 0xFFFFFFFFFFFFFFFF:
    """The number `x` rounded to dtype `t`, as the bits of an 8-byte cell."""
    cdef uint64_t bits = 0
    cdef float f
    cdef double g
    if t == F32:
        f = <float><double>x
        memcpy(&bits, &f, 4)
    elif t == F64:
        g = x
        memcpy(&bits, &g, 8)
    elif is_float(t):
        bits = dtypes.to_bits(float(x), DTYPES[t].text)
    elif t == B8:
        bits = 1 if x else 0
    else:
        if isinstance(x, (float, np.floating)) and not math_isfinite(x):
            raise DTypeError(f"{x!r} is not an integer, as dtype {DTYPES[t].name} needs")
        whole = int(x)  # towards zero, as in PyTorch
        if not fits(whole, t):
            raise OverflowError(f"{x!r} does not fit {DTYPES[t].name}")
        bits = <uint64_t><int64_t>whole if t == I64 else (<uint64_t><int64_t>whole & ((<uint64_t>1 << 8 * itemsize(as_dtype(t))) - 1))
    return bits


cdef inline int larger(int a, int b):
    """The dtype that holds both (-1: none); of two floats of 16 bits neither does, nor of int8 and uint8."""
    cdef int first = a if a < b else b, second = b if a < b else a
    if first == U8 and second == I8:
        return I16
    return F32 if first == F16 and second == BF16 else second


cdef inline int number_type(const OpSpec* s, int t):
    """The dtype of a Python number beside tensors of dtype t: arithmetic on 16-bit floats is float32's, as in PyTorch."""
    return F32 if (t == F16 or t == BF16) and s.out_type[0] == ANY and not s.direct else t


cdef int promote(const OpSpec* s, list args, int op) except -2:
    """The compute dtype T: PyTorch's promotion, where 0-d tensors and numbers decide only a higher category."""
    cdef int dims = -1, zero = -1, number = -1, i, t
    for i in range(s.n_in):
        if s.in_type[i] != ANY:
            continue
        if isinstance(args[i], Tensor):
            t = dtype_id((<Tensor>args[i]).d.dtype)
            if (<Tensor>args[i]).d.rank > 0:
                dims = larger(dims, t)
            else:
                zero = larger(zero, t)
        else:
            number = larger(number, scalar_dtype(args[i]))
    t = dims
    if zero >= 0 and (t < 0 or category(zero) > category(t)):
        t = zero
    if number >= 0 and (t < 0 or category(number) > category(t)):
        t = number
    if s.promote_first and isinstance(args[0], Tensor):
        t = dtype_id((<Tensor>args[0]).d.dtype)
    elif s.promote_float and not is_float(t):
        t = default_float
    if number == I64 and s.out_type[0] == B8 and U8 <= t <= I32 and not all_fit(s, args, t):
        t = I64  # a comparison with a number that no element can equal
    if not allowed(s.over, t):
        raise DTypeError(f"{rows[op].name} is not defined for {DTYPES[t].name}; operands are "
                         + ", ".join(describe(args[i]) for i in range(s.n_in)))
    return t


cdef bint all_fit(const OpSpec* s, list args, int t) except -1:
    """Whether the integers among the operands are values of dtype t."""
    cdef int i
    for i in range(s.n_in):
        if isinstance(args[i], int) and not fits(args[i], t):
            return False
    return True


def promote_types(a, b):
    """The dtype that holds both: the later of the two in bool, uint8, int8, int16, int32, int64, float16, bfloat16,
    float32, float64; but int16 for uint8 with int8, and float32 for float16 with bfloat16.

    >>> neurlang.promote_types(neurlang.int64, neurlang.float32)
    neurlang.float32
    >>> neurlang.promote_types(neurlang.uint8, neurlang.int8)
    neurlang.int16
    """
    return DTYPES[larger(dtype_arg(a, B8), dtype_arg(b, B8))]


def result_type(*args):
    """The dtype in which an operation on these tensors and numbers computes.

    Tensors with axes decide; 0-d tensors and numbers count only where their category (bool, integer, float) is higher.

    >>> neurlang.result_type(neurlang.zeros(2, dtype=neurlang.uint8), 1000)
    neurlang.uint8
    >>> neurlang.result_type(neurlang.arange(2), 0.5)
    neurlang.float32
    """
    cdef int dims = -1, rest = -1
    for x in args:
        if isinstance(x, Tensor) and (<Tensor>x).d.rank > 0:
            dims = larger(dims, dtype_id((<Tensor>x).d.dtype))
        else:
            rest = larger(rest, dtype_id((<Tensor>x).d.dtype) if isinstance(x, Tensor) else scalar_dtype(x))
    return DTYPES[rest if dims < 0 or (rest >= 0 and category(rest) > category(dims)) else dims]


cdef str describe(object x):
    """`float32[2, 3]`, for error messages."""
    if isinstance(x, Tensor):
        return f"{DTYPES[dtype_id((<Tensor>x).d.dtype)].name}{list(shape_tuple(&(<Tensor>x).d))}"
    return f"{type(x).__name__} {x!r}"
