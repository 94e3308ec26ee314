"""A U-Net: two levels down by max pooling, two up by transposed convolution, joined by concatenation."""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = 3


def build(torch: Any) -> Any:
    nn = torch.nn

    def double_conv(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down1 = double_conv(3, 16)
            self.down2 = double_conv(16, 32)
            self.bottom = double_conv(32, 64)
            self.pool = nn.MaxPool2d(2)
            self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
            self.conv2 = double_conv(64, 32)
            self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2)
            self.conv1 = double_conv(32, 16)
            self.out = nn.Conv2d(16, CLASSES, 1)

        def forward(self, x):
            skip1 = self.down1(x)
            skip2 = self.down2(self.pool(skip1))
            x = self.bottom(self.pool(skip2))
            x = self.conv2(torch.cat([self.up2(x), skip2], dim=1))
            x = self.conv1(torch.cat([self.up1(x), skip1], dim=1))
            return self.out(x)

    return UNet()


def batch(random: np.random.Generator) -> tuple[np.ndarray, ...]:
    return random.standard_normal((2, 3, 32, 32)).astype(np.float32), random.integers(0, CLASSES, (2, 32, 32))


def loss(torch: Any, model: Any, images: Any, labels: Any) -> Any:
    """Cross entropy at every pixel."""
    return torch.nn.functional.cross_entropy(model(images), labels)
