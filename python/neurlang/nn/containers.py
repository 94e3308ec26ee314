"""Containers: modules that hold other modules in a sequence, a list or a dictionary."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, overload

from .module import MODULE, Module


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
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        for module in modules:
            self.append(module)
        return self

    def _of(self, modules: list[Module]) -> Any:
        return type(self)().extend(modules)


class Sequential(_Indexed):
    """Feeds each module's result to the next; takes modules, or one dictionary of named ones."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], Mapping) else enumerate(args)
        for name, module in named:
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input


class ModuleList(_Indexed):
    """A list of modules whose parameters are found."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        modules = list(self)
        modules.insert(index, module)
        for position, item in enumerate(modules):
            self.add_module(str(position), item)


class ModuleDict(Module):
    """A dictionary of modules whose parameters are found."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
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
        return self._of_kind(MODULE).keys()

    def values(self) -> ValuesView[Module]:
        return self._of_kind(MODULE).values()

    def items(self) -> Any:
        return self._of_kind(MODULE).items()
