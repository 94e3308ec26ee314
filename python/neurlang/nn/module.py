"""Module: the base of all layers, a tree of parameters, buffers and submodules with PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from .._tensor import Tensor, bfloat16, float16, float32, float64
from ..autograd import no_grad, zero_grads
from .parameter import Parameter

Self = TypeVar("Self", bound="Module")

PARAMETER, BUFFER, TRANSIENT, MODULE = "parameter", "buffer", "transient buffer", "module"


class IncompatibleKeys(NamedTuple):
    """The names that `load_state_dict` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class RemovableHandle:
    """What the registration of a hook returns: `remove()` ends it."""

    def __init__(self, hooks: list[Any], entry: tuple[str, Callable[..., Any]]) -> None:
        self._hooks, self._entry = hooks, entry
        hooks.append(entry)

    def remove(self) -> None:
        """The hook is called no more."""
        self._hooks[:] = [entry for entry in self._hooks if entry is not self._entry]


class Module:
    """Base of all layers: assign parameters and modules to attributes, write `forward`, call the instance.

    The values are ordinary instance attributes, so reading one costs nothing extra; `_kinds` remembers, in the order of
    registration, which attributes belong to the tree.

    >>> class Double(neurlang.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = neurlang.nn.Parameter(neurlang.tensor(2.0))
    ...     def forward(self, x):
    ...         return self.weight * x
    >>> Double()(neurlang.tensor(3.0)).item(), [name for name, _ in Double().named_parameters()]
    (6.0, ['weight'])
    """

    training: bool
    _kinds: dict[str, str]

    def __init__(self) -> None:
        object.__setattr__(self, "_kinds", {})
        object.__setattr__(self, "training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        for before in self._of_hooks("before"):
            changed = before(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for after in self._of_hooks("after"):
            changed = after(self, args, result)
            result = result if changed is None else changed
        return result

    # Hooks.

    _hooks: list[tuple[str, Callable[..., Any]]] | None = None  # most modules have none, and their calls cost nothing

    def _of_hooks(self, when: str) -> list[Callable[..., Any]]:
        return [hook for at, hook in self._hooks or () if at == when]

    def _hook(self, when: str, hook: Callable[..., Any]) -> RemovableHandle:
        hooks = self.__dict__.setdefault("_hooks", [])
        return RemovableHandle(hooks, (when, hook))

    def register_forward_pre_hook(self, hook: Callable[[Any, Any], Any]) -> RemovableHandle:
        """Calls `hook(module, args)` before each `forward`; what it returns, if not None, replaces the arguments.

        >>> layer = neurlang.nn.Identity()
        >>> handle = layer.register_forward_pre_hook(lambda module, args: args[0] * 2)
        >>> layer(neurlang.ones(2))
        tensor([2., 2.])
        """
        return self._hook("before", hook)

    def register_forward_hook(self, hook: Callable[[Any, Any, Any], Any]) -> RemovableHandle:
        """Calls `hook(module, args, result)` after each `forward`; what it returns, if not None, replaces the result.

        >>> layer = neurlang.nn.Linear(3, 2)
        >>> handle = layer.register_forward_hook(lambda module, args, result: print(result.shape))
        >>> y = layer(neurlang.ones(4, 3))
        (4, 2)
        >>> handle.remove()
        >>> y = layer(neurlang.ones(4, 3))
        """
        return self._hook("after", hook)

    # Registration.

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._register(name, value, PARAMETER)
        elif isinstance(value, Module):
            self._register(name, value, MODULE)
        else:
            kind = self.__dict__.get("_kinds", {}).get(name)
            if kind in (PARAMETER, MODULE) and value is not None:
                raise TypeError(f"{name!r} is a {kind} and cannot become a {type(value).__name__}")
            if kind in (BUFFER, TRANSIENT) and not isinstance(value, Tensor | None):
                raise TypeError(f"{name!r} is a buffer and cannot become a {type(value).__name__}")
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._kinds.pop(name, None)

    def _register(self, name: str, value: Any, kind: str) -> None:
        if "_kinds" not in self.__dict__:
            raise AttributeError(f"call super().__init__() of {type(self).__name__} before assigning {name!r}")
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"{name!r} cannot name a {kind}")
        if hasattr(type(self), name):
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")
        self._kinds[name] = kind
        self.__dict__[name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Makes `name` an attribute and a parameter; None keeps the name without one.

        >>> module = neurlang.nn.Module()
        >>> module.register_parameter("weight", neurlang.nn.Parameter(neurlang.zeros(2)))
        >>> list(module.state_dict())
        ['weight']
        """
        if not isinstance(param, Parameter | None):
            raise TypeError(f"{name!r} must be a Parameter or None, got {type(param).__name__}")
        self._register(name, param, PARAMETER)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; if not `persistent`, the state dict leaves it out.

        >>> module = neurlang.nn.Module()
        >>> module.register_buffer("mean", neurlang.zeros(2))
        >>> list(module.state_dict()), list(module.parameters())
        (['mean'], [])
        """
        if not isinstance(tensor, Tensor | None):
            raise TypeError(f"{name!r} must be a Tensor or None, got {type(tensor).__name__}")
        self._register(name, tensor, BUFFER if persistent else TRANSIENT)

    def add_module(self, name: str, module: Module | None) -> None:
        """Makes `name` an attribute and a submodule; None keeps the name without one.

        >>> module = neurlang.nn.Module()
        >>> module.add_module("act", neurlang.nn.ReLU())
        >>> module.act
        ReLU()
        """
        if not isinstance(module, Module | None):
            raise TypeError(f"{name!r} must be a Module or None, got {type(module).__name__}")
        self._register(name, module, MODULE)

    register_module = add_module

    def _of_kind(self, *kinds: str) -> dict[str, Any]:
        """This module's own parts of these kinds, absent ones (None) left out."""
        own = self.__dict__
        return {name: own[name] for name, kind in self._kinds.items() if kind in kinds and own[name] is not None}

    # Walks over the tree. What is reached twice (shared weights) is met once.

    def named_modules(self, memo: set[Module] | None = None, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module, whose path is `prefix`, and of all below it.

        >>> [name for name, _ in neurlang.nn.Sequential(neurlang.nn.ReLU()).named_modules()]
        ['', '0']
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, module in self._of_kind(MODULE).items():
            yield from module.named_modules(memo, _join(prefix, name))

    def modules(self) -> Iterator[Module]:
        """This module and all below it.

        >>> len(list(neurlang.nn.Sequential(neurlang.nn.ReLU()).modules()))
        2
        """
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules.

        >>> list(neurlang.nn.Sequential(neurlang.nn.ReLU()).named_children())
        [('0', ReLU())]
        """
        return _distinct(self._of_kind(MODULE).items())

    def children(self) -> Iterator[Module]:
        """The direct submodules.

        >>> list(neurlang.nn.Sequential(neurlang.nn.ReLU()).children())
        [ReLU()]
        """
        return (module for _, module in self.named_children())

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as "body.0"; AttributeError where there is none.

        >>> neurlang.nn.Sequential(neurlang.nn.ReLU()).get_submodule("0")
        ReLU()
        """
        module = self
        for name in target.split(".") if target else ():
            parts = module._of_kind(MODULE)
            if name not in parts:
                raise AttributeError(f"{type(module).__name__} has no submodule {name!r} (of {target!r})")
            module = parts[name]
        return module

    def _named_parts(self, prefix: str, recurse: bool, *kinds: str) -> Iterator[tuple[str, Any]]:
        modules = self.named_modules(prefix=prefix) if recurse else [(prefix, self)]
        return _distinct(
            (_join(path, name), value) for path, module in modules for name, value in module._of_kind(*kinds).items()
        )

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of the whole tree, or of this module only.

        >>> [name for name, _ in neurlang.nn.Sequential(neurlang.nn.Linear(2, 3)).named_parameters()]
        ['0.weight', '0.bias']
        """
        return self._named_parts(prefix, recurse, PARAMETER)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of the whole tree, or of this module only.

        >>> [p.shape for p in neurlang.nn.Linear(2, 3).parameters()]
        [(3, 2), (3,)]
        """
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer) of the whole tree, or of this module only.

        >>> [name for name, _ in neurlang.nn.BatchNorm1d(2).named_buffers()]
        ['running_mean', 'running_var', 'num_batches_tracked']
        """
        return self._named_parts(prefix, recurse, BUFFER, TRANSIENT)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of the whole tree, or of this module only.

        >>> [b.shape for b in neurlang.nn.BatchNorm1d(2).buffers()]
        [(2,), (2,), ()]
        """
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # State.

    def _state(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """The whole state; shared tensors come under each of their names, as in PyTorch's state dicts."""
        for kind in (PARAMETER, BUFFER):
            for name, value in self._of_kind(kind).items():
                yield prefix + name, value
        for name, module in self._of_kind(MODULE).items():
            yield from module._state(f"{prefix}{name}.")

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Returns the parameters and persistent buffers by name; they share memory with the module.

        >>> neurlang.nn.LayerNorm(2).state_dict()
        {'weight': tensor([1., 1.]), 'bias': tensor([0., 0.])}
        """
        return {name: value.detach() for name, value in self._state(prefix)}

    @no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> IncompatibleKeys:
        """Copies values into this module by name. If a name or a shape does not fit, nothing is copied.

        RuntimeError then, and with `strict` (default) also for names missing or unexpected.

        >>> neurlang.nn.LayerNorm(2).load_state_dict({"weight": neurlang.ones(2)}, strict=False)
        IncompatibleKeys(missing_keys=['bias'], unexpected_keys=[])
        """
        own = dict(self._state(""))
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = [
            f"{name} has shape {list(state_dict[name].shape)}, expected {list(value.shape)}"
            for name, value in own.items()
            if name in state_dict and state_dict[name].shape != value.shape
        ]
        if strict:
            problems += [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
        if problems:
            raise RuntimeError(f"cannot load this state into {type(self).__name__}: " + "; ".join(problems))
        for name, value in own.items():
            if name in state_dict:
                value.copy_(state_dict[name])
        return IncompatibleKeys(missing, unexpected)

    # Changes of the whole tree.

    def apply(self: Self, fn: Callable[[Module], object]) -> Self:
        """Calls `fn` on every submodule, children first, then on this module.

        >>> net = neurlang.nn.Sequential(neurlang.nn.ReLU(), neurlang.nn.Tanh())
        >>> net = net.apply(lambda module: print(type(module).__name__))
        ReLU
        Tanh
        Sequential
        """
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """Sets `training` of the whole tree; returns self.

        >>> neurlang.nn.Dropout().eval().train().training
        True
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """`train(False)`.

        >>> neurlang.nn.Dropout().eval().training
        False
        """
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Sets `requires_grad` of all parameters; returns self.

        >>> neurlang.nn.Linear(2, 3).requires_grad_(False).weight.requires_grad
        False
        """
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or overwrites them with zeros.

        >>> layer = neurlang.nn.Linear(2, 1)
        >>> layer(neurlang.ones(2)).sum().backward()
        >>> layer.zero_grad()
        >>> layer.weight.grad is None
        True
        """
        zero_grads(self.parameters(), set_to_none)

    @no_grad()
    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Converts floating-point parameters and buffers in place, as `Tensor.to` would; CPU is the only device.

        >>> neurlang.nn.Linear(2, 3).to(neurlang.float64).weight.dtype
        neurlang.float64
        """
        for value in (*self.parameters(), *self.buffers()):
            if value.dtype.is_floating_point:
                value.data = value.data.to(*args, **kwargs)
        return self

    def float(self: Self) -> Self:
        """`to(float32)`.

        >>> neurlang.nn.Linear(2, 3).double().float().weight.dtype
        neurlang.float32
        """
        return self.to(float32)

    def double(self: Self) -> Self:
        """`to(float64)`.

        >>> neurlang.nn.Linear(2, 3).double().weight.dtype
        neurlang.float64
        """
        return self.to(float64)

    def half(self: Self) -> Self:
        """`to(float16)`.

        >>> neurlang.nn.Linear(2, 3).half().weight.dtype
        neurlang.float16
        """
        return self.to(float16)

    def bfloat16(self: Self) -> Self:
        """`to(bfloat16)`.

        >>> neurlang.nn.Linear(2, 3).bfloat16().weight.dtype
        neurlang.bfloat16
        """
        return self.to(bfloat16)

    # Text.

    def extra_repr(self) -> str:
        """The arguments shown in the module's text; subclasses may write it.

        >>> neurlang.nn.Linear(2, 3).extra_repr()
        '2, 3, bias=True'
        """
        return ""

    def __repr__(self) -> str:
        name, extra, children = type(self).__name__, self.extra_repr(), self._of_kind(MODULE)
        if not children:
            return f"{name}({extra})"
        lines = ([extra] if extra else []) + [f"({child}): {module!r}" for child, module in children.items()]
        return f"{name}(\n" + "\n".join(lines).replace("\n", "\n  ").join(("  ", "\n)"))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _distinct(named: Any) -> Iterator[tuple[str, Any]]:
    """The pairs whose value did not come before."""
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value
