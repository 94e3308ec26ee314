"""A MobileNetV2-like network: inverted residuals with depthwise convolutions and relu6, but fewer blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = 10
SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 1, 1))  # expansion, channels, blocks, first stride


def build(torch: Any) -> Any:
    nn = torch.nn

    def conv_bn(inputs, outputs, kernel, stride=1, groups=1):
        return [
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]

    class InvertedResidual(nn.Module):
        def __init__(self, inputs, outputs, stride, expansion):
            super().__init__()
            hidden = inputs * expansion
            layers = []
            if expansion != 1:
                layers += [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
            layers += [*conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
            layers += conv_bn(hidden, outputs, 1)
            self.conv = nn.Sequential(*layers)
            self.residual = stride == 1 and inputs == outputs

        def forward(self, x):
            return x + self.conv(x) if self.residual else self.conv(x)

    class MobileNetV2(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [*conv_bn(3, 32, 3, stride=2), nn.ReLU6(inplace=True)]
            channels = 32
            for expansion, outputs, blocks, stride in SETTINGS:
                for block in range(blocks):
                    layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                    channels = outputs
            layers += [*conv_bn(channels, 256, 1), nn.ReLU6(inplace=True)]
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(256, CLASSES))

        def forward(self, x):
            x = self.features(x)
            return self.classifier(x.mean([2, 3]))

    return MobileNetV2()


def batch(random: np.random.Generator) -> tuple[np.ndarray, ...]:
    return random.standard_normal((4, 3, 32, 32)).astype(np.float32), random.integers(0, CLASSES, 4)


def loss(torch: Any, model: Any, images: Any, labels: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(images), labels)
