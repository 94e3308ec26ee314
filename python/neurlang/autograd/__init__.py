"""Reverse-mode differentiation: the walk over recorded nodes, the switches, custom gradients and their checks."""

from .engine import backward, grad, zero_grads
from .function import Function, FunctionContext
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .modes import enable_grad, no_grad, set_grad_enabled

__all__ = [
    "Function",
    "FunctionContext",
    "GradcheckError",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "no_grad",
    "set_grad_enabled",
    "zero_grads",
]
