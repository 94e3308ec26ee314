"""Classifies the 10,000 MNIST test images with a trained network: eager, traced and frozen give the same bits.

    python examples/mnist.py FOLDER

FOLDER holds t10k images and labels in IDX format and the weights as safetensors.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

import neurlang as nl
from neurlang import nn

IMAGES, LABELS = "mnist-t10k-images.idx3.gz", "mnist-t10k-labels.idx1.gz"
WEIGHTS = "mnist-mlp.safetensors"


def idx(path: Path) -> np.ndarray:
    """An array in IDX format: two zero bytes, the type (8: unsigned bytes), the rank, the extents, the bytes."""
    data = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack_from(">HBB", data)
    if zero or kind != 8:
        raise ValueError(f"{path.name} is no IDX file of bytes")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 500), nn.Linear(500, 10)

    def forward(self, x: nl.Tensor) -> nl.Tensor:
        return self.fc2(self.fc1(x).relu())


def load(folder: Path) -> tuple[Classifier, nl.Tensor, np.ndarray]:
    """The trained network, the images as rows of values from 0 to 1, the labels."""
    model = Classifier()
    model.load_state_dict(nl.load(folder / WEIGHTS))
    images = nl.tensor(idx(folder / IMAGES).reshape(-1, 784))
    return model, images.to(nl.float32) / 255.0, idx(folder / LABELS)


def classify(folder: Path) -> int:
    """How many of the images are read correctly; asserts that all three ways give the same bits."""
    model, x, labels = load(folder)
    with nl.no_grad():
        eager = model(x)
        step = nl.trace(lambda x: model(x))
        traced = step(x)
        frozen = step.freeze()(x)
    bits = {result.numpy().tobytes() for result in (eager, traced, frozen)}
    if len(bits) != 1:
        raise AssertionError("eager, traced and frozen results differ")
    return int((eager.argmax(1).numpy() == labels).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"with {IMAGES}, {LABELS} and {WEIGHTS}")
    right = classify(parser.parse_args().folder)
    print(f"{right:,} of 10,000 right; eager = traced = frozen, bit for bit")


if __name__ == "__main__":
    main()
