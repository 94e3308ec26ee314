"""Containers: modules that hold other modules in a sequence, a list or a dictionary."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, overload

from .._tensor import Tensor
from .module import MODULE, PARAMETER, Module
from .parameter import Parameter


class _Indexed(Module):
    """What Sequential and ModuleList share: children named "0", "1", … and reached by number."""

    def _position(self, index: int) -> str:
        size, index = len(self), operator.index(index)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of range for {size} modules")
        return list(self._of_kind(MODULE))[index]

    def __len__(self) -> int:
        return len(self._of_kind(MODULE))

    def __iter__(self) -> Iterator[Module]:
        return iter(self._of_kind(MODULE).values())

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Any: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._of(list(self)[index])
        return getattr(self, self._position(index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._position(index), module)

    def append(self, module: Module) -> Any:
        """Adds a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Adds modules at the end; returns self."""
        for module in modules:
            self.append(module)
        return self

    def _of(self, modules: list[Module]) -> Any:
        return type(self)().extend(modules)


class Sequential(_Indexed):
    """Feeds each module's result to the next; takes modules, or one dictionary of named ones.

    An index gives a module, a slice a Sequential.

    >>> net = neurlang.nn.Sequential(neurlang.nn.Linear(2, 4), neurlang.nn.ReLU()).append(neurlang.nn.Linear(4, 1))
    >>> net.extend([neurlang.nn.ReLU()])(neurlang.zeros(3, 2)).shape
    (3, 1)
    >>> net[1:3]
    Sequential(
      (0): ReLU()
      (1): Linear(4, 1, bias=True)
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], Mapping) else enumerate(args)
        for name, module in named:
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        own = self.__dict__
        for name, kind in self._kinds.items():
            if kind == MODULE and own[name] is not None:
                input = own[name](input)
        return input


class ModuleList(_Indexed):
    """A list of modules whose parameters are found.

    >>> layers = neurlang.nn.ModuleList([neurlang.nn.Linear(2, 2) for _ in range(3)])
    >>> layers.insert(0, neurlang.nn.ReLU())
    >>> len(layers.append(neurlang.nn.Tanh()).extend([])), layers[0]
    (5, ReLU())
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before the one of number `index`."""
        modules = list(self)
        modules.insert(index, module)
        for position, item in enumerate(modules):
            self.add_module(str(position), item)


class ModuleDict(Module):
    """A dictionary of modules whose parameters are found.

    >>> heads = neurlang.nn.ModuleDict({"a": neurlang.nn.ReLU()})
    >>> heads.update({"b": neurlang.nn.Tanh()})
    >>> heads["b"], list(heads.keys()), list(heads.values())
    (Tanh(), ['a', 'b'], [ReLU(), Tanh()])
    >>> list(heads.items())[0]
    ('a', ReLU())
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Adds modules, in place of those of the same names."""
        for name, module in modules.items():
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        return self._of_kind(MODULE)[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        delattr(self, name)

    def __len__(self) -> int:
        return len(self._of_kind(MODULE))

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_kind(MODULE))

    def __contains__(self, name: object) -> bool:
        return name in self._of_kind(MODULE)

    def keys(self) -> KeysView[str]:
        """The names, in the order of addition."""
        return self._of_kind(MODULE).keys()

    def values(self) -> ValuesView[Module]:
        """The modules, in the order of addition."""
        return self._of_kind(MODULE).values()

    def items(self) -> Any:
        """(name, module), in the order of addition."""
        return self._of_kind(MODULE).items()


class ParameterList(Module):
    """A list of parameters that are found; tensors become parameters.

    >>> scales = neurlang.nn.ParameterList([neurlang.ones(2), neurlang.ones(3)])
    >>> scales.append(neurlang.zeros(1))[2].shape, len(scales), [name for name, _ in scales.named_parameters()]
    ((1,), 3, ['0', '1', '2'])
    >>> scales.extend([neurlang.zeros(4)])[-1].shape
    (4,)
    """

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)

    def append(self, value: Tensor) -> ParameterList:
        """Adds a parameter at the end; returns self."""
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(str(len(self)), parameter)
        return self

    def extend(self, values: Iterable[Tensor]) -> ParameterList:
        """Adds parameters at the end; returns self."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._of_kind(PARAMETER))

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._of_kind(PARAMETER).values())

    def __getitem__(self, index: int) -> Parameter:
        return list(self)[index]
