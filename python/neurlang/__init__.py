"""neurlang: tensors as in PyTorch, loops that are captured, fused, planned into one arena and replayed."""

from typing import Any

from . import _tensor, autograd, functional, nn, optim, random
from ._tensor import *  # noqa: F403
from ._tensor import Tensor, bfloat16, bool_, dtype, float16, float32, float64, int8, int16, int32, int64, uint8
from .autograd import enable_grad, grad, no_grad, set_grad_enabled
from .blas import get_gemm, set_gemm, show_config
from .errors import AliasError, CacheWarning, DTypeError, FormatError, ShapeError, TraceError
from .functional import *  # noqa: F403
from .ops.row import Row
from .ops.table import ROWS, register
from .precision import get_conv_precision, set_conv_precision
from .serialize import load, save
from .tracing import Counts, reset_programs, trace

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Functions of rows that were registered at run time."""
    if name in ROWS:
        return getattr(_tensor, name)
    raise AttributeError(f"module 'neurlang' has no attribute {name!r}")


# PyTorch's spellings.
bool = bool_
double = float64
float = float32
int = int32
short = int16
long = int64
half = float16
FloatTensor = Tensor
nan, inf, pi, e = (_tensor.np.nan, _tensor.np.inf, _tensor.np.pi, _tensor.np.e)
