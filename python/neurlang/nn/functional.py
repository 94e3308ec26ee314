"""The functions behind the layers, under the name PyTorch scripts import them by."""

from ..functional import *  # noqa: F403
