"""A variational autoencoder of 28x28 images: convolutions down, transposed convolutions up, a normal latent space."""

from __future__ import annotations

from typing import Any

import numpy as np

LATENT = 16


def build(torch: Any) -> Any:
    nn = torch.nn

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 16, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(32 * 7 * 7, 64),
                nn.ReLU(),
            )
            self.mean = nn.Linear(64, LATENT)
            self.logvar = nn.Linear(64, LATENT)
            self.expand = nn.Linear(LATENT, 32 * 7 * 7)
            self.decoder = nn.Sequential(
                nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            )

        def forward(self, x, noise):
            h = self.encoder(x)
            mean, logvar = self.mean(h), self.logvar(h)
            z = mean + noise * torch.exp(0.5 * logvar)
            image = self.decoder(torch.relu(self.expand(z)).view(-1, 32, 7, 7))
            return torch.sigmoid(image), mean, logvar

    return VAE()


def batch(random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Images, and the noise that training would draw, so that every library sees the same."""
    images = random.random((8, 1, 28, 28)).astype(np.float32)
    return images, random.standard_normal((8, LATENT)).astype(np.float32)


def loss(torch: Any, model: Any, images: Any, noise: Any) -> Any:
    output, mean, logvar = model(images, noise)
    likelihood = torch.nn.functional.binary_cross_entropy(output, images, reduction="sum")
    divergence = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return (likelihood + divergence) / images.shape[0]
