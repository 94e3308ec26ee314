"""Models in PyTorch's idiom, each a file with `build(torch)`, `batch(random)` and `loss(torch, model, *batch)`.

`torch` is whichever library is passed in: PyTorch itself, or neurlang under its name. Batches are NumPy arrays.
"""
