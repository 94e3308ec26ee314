# function_methods.pxi: the methods of Tensor that are functions too; included in the class body.

def matmul(self, other):
    """The matrix product."""
    return matmul(self, other)

def mm(self, mat2):
    """The product of two matrices."""
    return mm(self, mat2)

def bmm(self, mat2):
    """The products of two equally long batches of matrices."""
    return bmm(self, mat2)

def mv(self, vec):
    """The product of a matrix and a vector."""
    return mv(self, vec)

def dot(self, tensor):
    """The sum of the products of two vectors' elements."""
    return dot(self, tensor)

def __matmul__(self, other):
    return matmul(self, other) if is_tensor(other) else NotImplemented

def gather(self, dim, index):
    """self[… index …] along `dim`."""
    return gather(self, dim, index)

def scatter_add(self, dim, index, src):
    """`scatter_add_` on a copy."""
    return scatter_add(self, dim, index, src)

def index_select(self, dim, index):
    """The slices along `dim` named by a 1-D index."""
    return index_select(self, dim, index)

def index_add(self, dim, index, source, *, alpha=1):
    """`index_add_` on a copy."""
    return index_add(self, dim, index, source, alpha=alpha)

def bernoulli(self):
    """Ones with the probabilities that self holds, else zeros."""
    return bernoulli(self)

def nonzero(self, *, bint as_tuple=False):
    """The coordinates of the non-zero elements."""
    return nonzero(self, as_tuple=as_tuple)

def max(self, dim=None, bint keepdim=False, *, other=None):
    """The maximum, or (values, indices) along one axis, or the elementwise maximum with a tensor."""
    return extremum("max", "amax", "argmax", "maximum", self, dim, keepdim, other)

def min(self, dim=None, bint keepdim=False, *, other=None):
    """The minimum, or (values, indices) along one axis, or the elementwise minimum with a tensor."""
    return extremum("min", "amin", "argmin", "minimum", self, dim, keepdim, other)

def argmax(self, dim=None, bint keepdim=False):
    """The index of the first maximum, along one axis or of the flattened tensor."""
    return arg_extremum("argmax", "argmax", self, dim, keepdim)

def argmin(self, dim=None, bint keepdim=False):
    """The index of the first minimum, along one axis or of the flattened tensor."""
    return arg_extremum("argmin", "argmin", self, dim, keepdim)

def softmax(self, dim, dtype=None):
    """exp(x) / sum(exp(x)) along `dim`."""
    return softmax(self, dim, dtype)

def log_softmax(self, dim, dtype=None):
    """x - log(sum(exp(x))) along `dim`."""
    return log_softmax(self, dim, dtype)

def mean(self, dim=None, bint keepdim=False, *, dtype=None):
    """The mean over `dim` (None: all)."""
    return statistics.mean(F, self, dim, keepdim, dtype=dtype)

def var(self, dim=None, unbiased=True, bint keepdim=False, *, correction=None):
    """The variance over `dim`, divided by n - correction (unbiased: n - 1)."""
    return statistics.var(F, self, dim, unbiased, keepdim, correction=correction)

def std(self, dim=None, unbiased=True, bint keepdim=False, *, correction=None):
    """The square root of `var`."""
    return statistics.std(F, self, dim, unbiased, keepdim, correction=correction)

def norm(self, p=2, dim=None, bint keepdim=False, *, dtype=None):
    """The vector p-norm over `dim` (None: all)."""
    return statistics.norm(F, self, p, dim, keepdim, dtype=dtype)

def logsumexp(self, dim, bint keepdim=False):
    """log(sum(exp(x))) along `dim`, without overflow."""
    return statistics.logsumexp(F, self, dim, keepdim)

def tril(self, diagonal=0):
    """Zero above the diagonal of the last two axes."""
    return places.tril(F, self, diagonal)

def triu(self, diagonal=0):
    """Zero below the diagonal of the last two axes."""
    return places.triu(F, self, diagonal)

def repeat(self, *sizes):
    """self laid out several times along each axis.

    >>> neurlang.tensor([1, 2]).repeat(2, 2).tolist()
    [[1, 2, 1, 2], [1, 2, 1, 2]]
    """
    return places.repeat(F, self, varargs(sizes))

def tile(self, *dims):
    """self laid out several times along its last axes."""
    return places.tile(F, self, varargs(dims))

def roll(self, shifts, dims=None):
    """self moved along axes, what leaves at the end coming in at the front."""
    return places.roll(F, self, shifts, dims)

def movedim(self, source, destination):
    """Axes moved to other places, a view."""
    return places.movedim(F, self, source, destination)

def masked_select(self, mask):
    """The elements where the mask holds."""
    return places.masked_select(F, self, need_tensor(mask, "masked_select"))

def cumsum(self, dim, *, dtype=None):
    """The sums of all elements up to each one."""
    return cumsum(self, dim, dtype=dtype)

def cumprod(self, dim, *, dtype=None):
    """The products of all elements up to each one."""
    return cumprod(self, dim, dtype=dtype)

def logcumsumexp(self, dim):
    """log Σ exp of all elements up to each one."""
    return logcumsumexp(self, dim)

def cummax(self, dim):
    """(values, indices) of the largest element up to each one."""
    return cummax(self, dim)

def cummin(self, dim):
    """(values, indices) of the smallest element up to each one."""
    return cummin(self, dim)

def sort(self, dim=-1, descending=False, *, stable=False):
    """(values, indices) in order along `dim`."""
    return sort(self, dim, descending, stable=stable)

def argsort(self, dim=-1, descending=False, stable=False):
    """Where the elements in order along `dim` were."""
    return argsort(self, dim, descending, stable)

def msort(self):
    """The elements in order along the first axis."""
    return msort(self)

def topk(self, k, dim=-1, largest=True, sorted=True):
    """(values, indices) of the k largest elements along `dim`."""
    return topk(self, k, dim, largest, sorted)

def kthvalue(self, k, dim=-1, keepdim=False):
    """(values, indices) of the k-th smallest element along `dim`."""
    return order.kthvalue(F, self, k, dim, keepdim)

def median(self, dim=None, keepdim=False):
    """The lower median, with its place along `dim`."""
    return order.median(F, self, dim, keepdim)

def unique(self, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The distinct elements in ascending order, or slices along `dim`."""
    return order.unique(F, self, sorted, return_inverse, return_counts, dim)

def unique_consecutive(self, return_inverse=False, return_counts=False, dim=None):
    """The elements without those that equal the one before, or slices along `dim`."""
    return order.unique_consecutive(F, self, return_inverse, return_counts, dim)

def repeat_interleave(self, repeats, dim=None):
    """Every element (slice along `dim`) several times in a row."""
    return places.repeat_interleave(F, self, repeats, dim)

def outer(self, vec2):
    """All products of an element of self and an element of another vector."""
    return composite.outer(F, self, need_tensor(vec2, "outer"))

def addmm(self, mat1, mat2, *, beta=1, alpha=1):
    """beta self + alpha (mat1 @ mat2)."""
    return composite.addmm(F, self, mat1, mat2, beta=beta, alpha=alpha)

def isclose(self, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Where self is near other."""
    return composite.isclose(F, self, need_tensor(other, "isclose"), rtol, atol, equal_nan)

def allclose(self, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether self is near other everywhere."""
    return composite.allclose(F, self, need_tensor(other, "allclose"), rtol, atol, equal_nan)

def count_nonzero(self, dim=None):
    """How many elements over `dim` (None: all) are not zero."""
    return composite.count_nonzero(F, self, dim)

def where(self, condition, other):
    """self where the condition holds, else other."""
    return map3(OP["where"], condition, self, other)

def round(self, *, decimals=0):
    """The nearest integer (or multiple of 10^-decimals), ties to even."""
    return tensor_round(self, decimals=decimals)

def nan_to_num(self, nan=0.0, posinf=None, neginf=None):
    """NaN and the infinities replaced."""
    return nan_to_num(self, nan, posinf, neginf)

def div(self, other, *, rounding_mode=None):
    """The quotient; see neurlang.div."""
    return div(self, other, rounding_mode=rounding_mode)

divide = true_divide = div

def pow(self, exponent):
    """The power; see neurlang.pow."""
    return tensor_pow(self, exponent)

def __pos__(self):
    if dtype_id(self.d.dtype) == B8:
        raise DTypeError(f"+x is not defined for bool; the operand is {describe(self)}")
    return self

def __truediv__(self, other):
    return map2(OP["div"], self, other) if is_operand(other) else NotImplemented

def __rtruediv__(self, other):
    return map2(OP["div"], other, self) if is_operand(other) else NotImplemented

def __itruediv__(self, other):
    return map_into(OP["div"], self, (other,))

def div_(self, other, *, rounding_mode=None):
    """`div` in place."""
    return map_into(division(rounding_mode), self, (other,))

divide_ = true_divide_ = div_

def __pow__(self, exponent, modulo):
    return tensor_pow(self, exponent) if is_operand(exponent) else NotImplemented

def __rpow__(self, base, modulo):
    return map2(OP["pow"], base, self) if is_operand(base) else NotImplemented

def __ipow__(self, exponent):
    return pow_into(self, exponent)

def pow_(self, exponent):
    """`pow` in place."""
    return pow_into(self, exponent)
