"""The main job: an MLP and a CNN learn real handwritten digits, eagerly and traced, to the same weights bit for bit.

`make demo` runs it. The digits are scikit-learn's bundled 1,797 images; a fifth of them is held out. Writes demo.html.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import neurlang as nl
from neurlang import nn, view
from neurlang.nn import functional as F

SEED, BATCH = 1, 32
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05


@dataclass
class Digits:
    """Images of shape (n, 1, 8, 8) with values from 0 to 1, and their labels."""

    images: np.ndarray
    labels: np.ndarray

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[nl.Tensor, nl.Tensor]]:
        """One epoch in random order; a last partial batch is left out."""
        order = rng.permutation(len(self.labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield nl.tensor(self.images[chosen]), nl.tensor(self.labels[chosen])


@dataclass
class Run:
    """One training: the network, the loss of every step and how long the steps took."""

    model: nn.Module
    losses: list[float]
    seconds: list[float]

    @property
    def milliseconds(self) -> float:
        return 1e3 * median(self.seconds)


def load() -> tuple[Digits, Digits]:
    """The digits to learn from and the held-out fifth."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("this example needs scikit-learn: pip install 'neurlang[demo]'")
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    held_out, learned = np.split(order, [len(order) // 5])
    return tuple(Digits(images[part], data.target[part].astype(np.int64)) for part in (learned, held_out))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def train(build: Callable[[], nn.Module], digits: Digits, epochs: int, step: AbstractContextManager, name: str) -> Run:
    """Trains a new network; `step` is a trace, or a null context for eager training. The rest is the same program."""
    nl.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = build()
    optimizer = nl.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    total = epochs * (len(digits.labels) // BATCH)
    schedule = nl.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    run = Run(model, [], [])
    for _ in range(epochs):
        for x, target in digits.batches(rng):
            start = time.perf_counter()
            with step:
                loss = F.cross_entropy(model(x), target)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            run.losses.append(loss.item())
            run.seconds.append(time.perf_counter() - start)
            schedule.step()
            progress(name, len(run.losses), total, run.losses[-1])
    return run


def progress(name: str, done: int, total: int, loss: float) -> None:
    """One line that is drawn over itself; drawn rarely, so that it costs the training nothing."""
    if done % 20 and done != total:
        return
    filled = 30 * done // total
    end = "\n" if done == total else ""
    print(f"\r{name:12} [{'#' * filled:30}] {done:5}/{total}  loss {loss:.4f}", end=end, file=sys.stderr, flush=True)


def read(model: nn.Module, digits: Digits) -> np.ndarray:
    """The digits that the network reads."""
    model.eval()
    with nl.no_grad():
        return model(nl.tensor(digits.images)).argmax(1).numpy()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(p.numpy().tobytes() == q.numpy().tobytes() for p, q in pairs)


def compare(name: str, build: Callable[[], nn.Module], epochs: int, learned: Digits, held_out: Digits) -> list[str]:
    """Trains eagerly and traced, prints what differs (the time) and what does not; gives the page's sections."""
    trace = nl.trace()
    eager = train(build, learned, epochs, nullcontext(), f"{name} eager")
    traced = train(build, learned, epochs, trace, f"{name} traced")
    answers = read(traced.model, held_out)
    accuracy = float((answers == held_out.labels).mean())
    equal = same_weights(eager.model, traced.model)
    rows = report(trace, eager, traced, accuracy, equal)
    print(f"\n{name}")
    for label, text in rows:
        print(f"  {label:44}{text}")
    print()
    if not equal:
        sys.exit(f"{name}: eager and traced weights differ")
    if accuracy < 0.97:
        sys.exit(f"{name}: only {accuracy:.1%} of the held-out digits were read correctly")
    return sections(name, trace, eager, traced, rows, held_out, answers)


def report(trace: nl.trace, eager: Run, traced: Run, accuracy: float, equal: bool) -> list[tuple[str, str]]:
    program, memory = trace.program, trace.memory
    return [
        ("accuracy on the held-out fifth", f"{accuracy:.2%}"),
        ("one step, eager", f"{eager.milliseconds:.3f} ms"),
        (
            "one step, traced",
            f"{traced.milliseconds:.3f} ms ({eager.milliseconds / traced.milliseconds:.1f} times faster)",
        ),
        ("kernels, before fusion and after", f"{len(program.captured.nodes)}, {len(program.schedule.steps)}"),
        ("all intermediates", view.megabytes(memory.intermediate_bytes)),
        ("the arena that they share", view.megabytes(memory.peak_bytes)),
        ("compiled, replayed, cut", f"{trace.counts.compiled}, {trace.counts.replayed}, {trace.counts.cut}"),
        ("weights after eager and traced training", "equal bit for bit" if equal else "DIFFERENT"),
    ]


def sections(
    name: str,
    trace: nl.trace,
    eager: Run,
    traced: Run,
    rows: list[tuple[str, str]],
    held_out: Digits,
    answers: np.ndarray,
) -> list[str]:
    wrong = np.flatnonzero(answers != held_out.labels)[:12]
    misread = [(held_out.images[n, 0], f"read {answers[n]}, is {held_out.labels[n]}") for n in wrong]
    losses = {"eager": eager.losses, "traced (the same line)": traced.losses}
    return [
        view.section(name, "Trained eagerly and traced from the same seed.", view.table(rows)),
        view.section(f"{name}: loss", "The loss of every step.", view.chart(losses)),
        view.section(f"{name}: wrongly read", "Held-out digits that the network got wrong.", view.gallery(misread)),
        *view.trace_sections(trace),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=float, default=1.0, help="scales the number of epochs")
    parser.add_argument("--page", type=Path, default=Path("demo.html"), help="where the page is written")
    options = parser.parse_args()
    learned, held_out = load()
    content = []
    for name, build, epochs in (("MLP", mlp, 20), ("CNN", cnn, 16)):
        content += compare(name, build, max(1, round(epochs * options.epochs)), learned, held_out)
    options.page.write_text(view.page("Handwritten digits, eager and traced", content), encoding="utf-8")
    print(f"pictures: {options.page}")


if __name__ == "__main__":
    main()
