"""Learning-rate schedules: the rate of every group as a function of how many steps have been taken."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """Base of all schedules: subclasses give `_rate(base)` at step `last_epoch`; construction sets the first rate.

    KeyError where a schedule is resumed (`last_epoch` given) and a group has no "initial_lr".

    >>> class Halved(neurlang.optim.lr_scheduler.LRScheduler):
    ...     def _rate(self, base):
    ...         return base / 2**self.last_epoch
    >>> schedule = Halved(neurlang.optim.SGD([neurlang.ones(1)], lr=1.0))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        for group in optimizer.param_groups:
            if last_epoch != -1 and "initial_lr" not in group:
                raise KeyError("to resume a schedule, every parameter group needs its initial_lr")
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def _rate(self, base: float) -> float:
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def get_lr(self) -> list[float]:
        """The rate of every group at this step.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).get_lr()
        [1.0]
        """
        return [self._rate(base) for base in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """The rate that every group has now.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).get_last_lr()
        [1.0]
        """
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Goes on to the next step; call it after the optimiser's.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).step()
        >>> optimizer.param_groups[0]["lr"]
        0.5
        """
        self.jump(self.last_epoch + 1)

    def jump(self, epoch: int) -> None:
        """Sets the rates of step `epoch`.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).jump(3)
        >>> optimizer.param_groups[0]["lr"]
        0.125
        """
        self.last_epoch = epoch
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What changes with the steps and what was passed in numbers; functions are not kept.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).state_dict()
        {'gamma': 0.5, 'last_epoch': 0, 'base_lrs': [1.0]}
        """
        return {
            name: value for name, value in vars(self).items() if name != "optimizer" and not _holds_functions(value)
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken; the optimiser's rates come with its own state.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
        >>> schedule = neurlang.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        >>> schedule.load_state_dict({"last_epoch": 3})
        >>> schedule.step()
        >>> schedule.get_last_lr()
        [0.0625]
        """
        vars(self).update(state_dict)


def _holds_functions(value: Any) -> bool:
    return callable(value) or (isinstance(value, list) and any(map(callable, value)))


class LambdaLR(LRScheduler):
    """The first rate times a function of the step (one for all groups, or one for each).

    >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
    >>> schedule = neurlang.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        n_groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * n_groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != n_groups:
            raise ValueError(f"{len(self.lr_lambdas)} functions were given for {n_groups} parameter groups")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of every group at this step, each by its own function."""
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """The rate is multiplied by `gamma` every `step_size` steps.

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> schedule = neurlang.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """The rate is multiplied by `gamma` at each of the milestones.

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> schedule = neurlang.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 4], gamma=0.5)
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.5, 0.5, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, self.last_epoch)


class ExponentialLR(LRScheduler):
    """The rate is multiplied by `gamma` at every step.

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> schedule = neurlang.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float) -> float:
        return base * self.gamma**self.last_epoch


class LinearLR(LRScheduler):
    """The rate's factor goes from `start_factor` to `end_factor` in `total_iters` steps: a warm-up.

    ValueError where the factors are not in (0, 1] and [0, 1].

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> schedule = neurlang.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
            raise ValueError(f"factors must lie in (0, 1] and [0, 1], got {start_factor} and {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float) -> float:
        progress = min(self.last_epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * progress)


class CosineAnnealingLR(LRScheduler):
    """The rate follows half a cosine from the first one to `eta_min` in `T_max` steps.

    eta_min + (lr - eta_min) (1 + cos(π t / T_max)) / 2 at step t. Loshchilov & Hutter 2017.

    >>> optimizer = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0)
    >>> schedule = neurlang.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    >>> for _ in range(4):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float) -> float:
        return _cosine(base, self.eta_min, self.last_epoch / self.T_max)


class OneCycleLR(LRScheduler):
    """The rate rises from max_lr / div_factor to max_lr and falls to its first value / final_div_factor.

    With `cycle_momentum`, the momentum (or Adam's first beta) falls and rises the other way round.

    It rises during `pct_start` of the `total_steps` (or epochs * steps_per_epoch), along half a cosine or a line. A
    step past the last one is a ValueError. Smith & Topin 2017.

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> schedule = neurlang.optim.lr_scheduler.OneCycleLR(
    ...     optimizer, 1.0, total_steps=5, pct_start=0.6, anneal_strategy="linear", div_factor=4, final_div_factor=1
    ... )
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.25, 0.625, 1.0, 0.625]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.momenta = (max_momentum, base_momentum)
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        rates = [max_lr] * len(optimizer.param_groups) if isinstance(max_lr, int | float) else max_lr
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = rate / div_factor
        super().__init__(optimizer, last_epoch)

    def _between(self, first: float, top: float, last: float) -> float:
        """The value at this step of a curve that goes from `first` over `top` to `last`."""
        peak = self.pct_start * self.total_steps - 1
        anneal = _cosine if self.anneal_strategy == "cos" else _line
        if self.last_epoch <= peak and peak > 0:
            return anneal(first, top, self.last_epoch / peak)
        return anneal(top, last, (self.last_epoch - peak) / (self.total_steps - 1 - peak))

    def _rate(self, base: float) -> float:
        return self._between(base, base * self.div_factor, base / self.final_div_factor)

    def jump(self, epoch: int) -> None:
        """Sets the rates and momenta of step `epoch`; ValueError past the last one."""
        if epoch > self.total_steps:  # as in PyTorch, which lets one step more pass than there are rates
            raise ValueError(f"step {epoch} is past the {self.total_steps} steps of this schedule")
        super().jump(epoch)
        if self.cycle_momentum:
            momentum = self._between(self.momenta[0], self.momenta[1], self.momenta[0])
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


class SequentialLR(LRScheduler):
    """Schedules one after the other; each milestone is the step at which the next one begins.

    ValueError where there is not one milestone fewer than there are schedules.

    >>> optimizer, rates = neurlang.optim.SGD([neurlang.ones(1)], lr=1.0), []
    >>> warm = neurlang.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> decay = neurlang.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule = neurlang.optim.lr_scheduler.SequentialLR(optimizer, [warm, decay], milestones=[2])
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(
                f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, not {len(milestones)}"
            )
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        super().__init__(optimizer, last_epoch)

    def jump(self, epoch: int) -> None:
        """Sets the rates of step `epoch`, by the schedule whose turn it is then."""
        self.last_epoch = epoch
        current = bisect_right(self._milestones, epoch)
        self._schedulers[current].jump(epoch - (self._milestones[current - 1] if current else 0))

    def state_dict(self) -> dict[str, Any]:
        """The step, and the state of every schedule."""
        return {"last_epoch": self.last_epoch, "schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken; the optimiser's rates come with its own state."""
        self.last_epoch = state_dict["last_epoch"]
        for scheduler, state in zip(self._schedulers, state_dict["schedulers"], strict=True):
            scheduler.load_state_dict(state)


def _cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
