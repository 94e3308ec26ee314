"""Losses: each applies the function of the same meaning with the arguments it was made with."""

from __future__ import annotations

from .. import functional as F
from .._tensor import Tensor
from .module import Module


class _Loss(Module):
    """A loss whose elements are averaged ("mean"), added ("sum") or returned as they are ("none")."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """A loss with a weight for each class."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_WeightedLoss):
    """The cross entropy between logits and class indices or probabilities.

    Shapes and arguments as in `functional.cross_entropy`.

    >>> neurlang.nn.CrossEntropyLoss()(neurlang.tensor([[0.0, -200.0]]), neurlang.tensor([1])).item()
    200.0
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_WeightedLoss):
    """The negative log likelihood of class indices, given log probabilities.

    Shapes and arguments as in `functional.nll_loss`.

    >>> neurlang.nn.NLLLoss()(neurlang.tensor([[-1.0, -2.0]]), neurlang.tensor([1])).item()
    2.0
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """(x - y)², averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.nn.MSELoss()(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    2.0
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|x - y|, averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.nn.L1Loss()(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    1.0
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """d²/(2 beta) where the error d is below `beta`, else d - beta/2.

    >>> neurlang.nn.SmoothL1Loss("none")(neurlang.tensor([0.5, 3.0]), neurlang.zeros(2)).tolist()
    [0.125, 2.5]
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Quadratic for errors below `delta`, linear beyond.

    >>> neurlang.nn.HuberLoss()(neurlang.tensor([3.0]), neurlang.tensor([0.0]))
    tensor(2.5)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_WeightedLoss):
    """The binary cross entropy -(t log p + (1 - t) log(1 - p)) of probabilities.

    >>> neurlang.nn.BCELoss()(neurlang.tensor([0.0]), neurlang.tensor([1.0])).item()
    100.0
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """The binary cross entropy of logits, without overflow; `pos_weight` multiplies the losses of targets 1.

    >>> neurlang.nn.BCEWithLogitsLoss()(neurlang.tensor([-200.0]), neurlang.tensor([1.0])).item()
    200.0
    """

    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """The Kullback-Leibler divergence of `target` from the log probabilities `input`.

    "batchmean" divides the sum by the batch size, which is the definition; "mean" by the number of elements.

    >>> neurlang.nn.KLDivLoss("batchmean")(neurlang.tensor([[-2.0, -4.0]]), neurlang.tensor([[1.0, 0.0]])).item()
    2.0
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
