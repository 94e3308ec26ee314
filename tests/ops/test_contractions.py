"""tensordot and einsum: random ones beside NumPy, with gradients beside PyTorch, and what they refuse."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees, assert_close

import neurlang as nl

R = np.random.default_rng(11)
EQUATIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "ij,jk": ((3, 4), (4, 5)),
    "bij,bkj->bik": ((2, 3, 4), (2, 5, 4)),
    "...ij,...jk->...ik": ((2, 1, 3, 4), (6, 4, 5)),
    "bhqd,bhkd->bhqk": ((2, 3, 4, 5), (2, 3, 6, 5)),
    "ab,b...->a...": ((2, 3), (3, 4, 5)),
    "...a,...b": ((2, 3), (2, 4)),
    "i...->...": ((2, 3, 4),),
    "...->": ((2, 3),),
    "ii": ((3, 3),),
    "ii->i": ((3, 3),),
    "aiii->ia": ((2, 3, 3, 3),),
    "iij,jk->ik": ((3, 3, 4), (4, 2)),
    "ba": ((2, 3),),
    "Ab,bA": ((2, 3), (3, 2)),
    " i j , j k -> k i ": ((3, 4), (4, 5)),
    ",i->i": ((), (3,)),
    "i,j": ((2,), (3,)),
    "i,i->i": ((4,), (4,)),
    "ij,kl->": ((3, 4), (2, 2)),
    "i,ij,j": ((3,), (3, 4), (4,)),
    "ij,jk,kl->il": ((2, 3), (3, 4), (4, 5)),
    "bn,anm,bm->ba": ((2, 5), (3, 5, 4), (2, 4)),
    "ij,kj->ik": ((3, 4), (2, 1)),
    "ij,j->ij": ((3, 1), (5,)),
    "ij,jk->ik": ((3, 0), (0, 5)),
    "i->": ((0,),),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_and_its_gradients_against_torch(equation: str, torch: Any) -> None:
    arrays = [R.standard_normal(shape) for shape in EQUATIONS[equation]]
    ours = [nl.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    got, expected = nl.einsum(equation, *ours), torch.einsum(equation, *theirs)
    assert tuple(got.shape) == tuple(expected.shape)
    assert_agrees(got.detach().numpy(), expected.detach().numpy())
    g = np.asarray(R.standard_normal(tuple(expected.shape)))
    got.backward(nl.tensor(g))
    expected.backward(torch.tensor(g))
    for a, b in zip(ours, theirs, strict=True):
        assert_agrees(a.grad.numpy(), b.grad.numpy())


@pytest.mark.parametrize("seed", range(30))
def test_random_equations_against_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = dict(zip(string.ascii_letters, rng.integers(1, 5, 6).tolist(), strict=False))
    terms = ["".join(rng.choice(list(sizes), rng.integers(0, 5))) for _ in range(rng.integers(1, 4))]
    arrays = [np.asarray(rng.standard_normal([sizes[label] for label in term])) for term in terms]
    equation = ",".join(terms)
    if rng.random() < 0.7:
        labels = sorted(set("".join(terms)))
        equation += "->" + "".join(rng.permutation(labels)[: rng.integers(0, len(labels) + 1)])
    exact, scale = np.einsum(equation, *arrays), np.einsum(equation, *map(np.abs, arrays))
    with nl.trace():
        traced = nl.einsum(equation, *map(nl.tensor, arrays))
    n = max(1, int(np.prod(list(sizes.values()))))
    assert_close(traced.numpy(), exact, "dot", n=n, scale=scale)
    np.testing.assert_array_equal(nl.einsum(equation, [nl.tensor(a) for a in arrays]).numpy(), traced.numpy())


@pytest.mark.parametrize(
    ("shape", "other", "dims"),
    [
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3, 4), (4,), 1),
        ((2, 3), (4,), 0),
        ((2, 3, 4), (5, 3), ([1], [1])),
        ((2, 3, 4), (4, 3, 2), ([0, 1], [2, 1])),
        ((2, 3, 4), (4, 3, 2), ([1, 0], [1, 2])),
        ((2, 3, 4), (4, 3), ([-1], [0])),
        ((2, 3), (3, 2), (1, 0)),
        ((2, 0), (0, 3), 1),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_tensordot_is_numpys(shape: tuple[int, ...], other: tuple[int, ...], dims: Any, dtype: str) -> None:
    a, b = (np.asarray(9 * R.standard_normal(s)).astype(dtype) for s in (shape, other))
    exact, scale = np.tensordot(a, b, dims), np.tensordot(np.abs(a), np.abs(b), dims)
    got = nl.tensordot(nl.tensor(a), nl.tensor(b), dims).numpy()
    assert got.dtype == exact.dtype
    if dtype == "int64":
        np.testing.assert_array_equal(got, exact)
    else:
        assert_close(got, exact, "dot", n=24, scale=scale)


def test_integers_keep_their_dtype() -> None:
    x = nl.full((300,), 200, dtype=nl.uint8)
    for equation, operands in (("i->", [x]), ("i,i->", [x, nl.ones_like(x)]), ("i,j->j", [x, nl.ones_like(x[:2])])):
        got = nl.einsum(equation, operands)
        assert got.dtype is nl.uint8 and got.flatten()[0].item() == 300 * 200 % 256
    assert nl.tensordot(x, x, np.int64(1)).dtype is nl.uint8


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "fewer operands": (lambda: nl.einsum("ij,jk", nl.ones(2, 3)), ValueError, "names 2 operands, 1 are given"),
    "no operand": (lambda: nl.einsum("i"), ValueError, "names 1 operands, 0 are given"),
    "unknown in the result": (lambda: nl.einsum("i->j", nl.ones(2)), ValueError, '"j" of the result'),
    "twice in the result": (lambda: nl.einsum("ij->ii", nl.ones(2, 2)), ValueError, '"i" of the result'),
    "another letter": (lambda: nl.einsum("i;j", nl.ones(2)), ValueError, "is no list of letters"),
    "two dots": (lambda: nl.einsum("i..", nl.ones(2)), ValueError, "is no list of letters"),
    "two ellipses": (lambda: nl.einsum("...i...", nl.ones(2)), ValueError, "several"),
    "two arrows": (lambda: nl.einsum("i->i->i", nl.ones(2)), ValueError, "is no list of letters"),
    "a number as equation": (lambda: nl.einsum(3, nl.ones(2)), TypeError, "must be a string, got int"),
    "a number as operand": (lambda: nl.einsum("i,", nl.ones(2), 3), nl.DTypeError, "must be a Tensor, got int"),
    "a number in a list": (lambda: nl.einsum("i,", [nl.ones(2), 3]), nl.DTypeError, "must be a Tensor, got int"),
    "a number before a list": (lambda: nl.einsum(3, [nl.ones(2)]), TypeError, "must be a string, got int"),
    "too many letters": (lambda: nl.einsum("ij", nl.ones(2)), nl.ShapeError, "does not fit"),
    "too few letters": (lambda: nl.einsum("i", nl.ones(2, 2)), nl.ShapeError, "does not fit"),
    "sizes": (lambda: nl.einsum("ij,jk", nl.ones(2, 3), nl.ones(4, 5)), nl.ShapeError, '"j".* is 3 long, but 4'),
    "diagonal": (lambda: nl.einsum("ii", nl.ones(1, 3)), nl.ShapeError, '"i".* is 1 long, but 3'),
    "diagonal of another size": (
        lambda: nl.einsum("i,ii", nl.ones(5), nl.ones(1, 5)),
        nl.ShapeError,
        '"i".* is 1 long, but 5',
    ),
    "more axes than there are": (lambda: nl.tensordot(nl.ones(2), nl.ones(2), 2), nl.ShapeError, "not that many"),
    "axes that differ": (lambda: nl.tensordot(nl.ones(2), nl.ones(3), 1), nl.ShapeError, r"axis 0 of the first \(2\)"),
    "no such axis": (lambda: nl.tensordot(nl.ones(2), nl.ones(2), ([0], [1])), nl.ShapeError, "axis 1 is out of range"),
    "an axis twice": (lambda: nl.tensordot(nl.ones(2), nl.ones(2), ([0, 0], [0, 0])), nl.ShapeError, "different axes"),
    "one list": (lambda: nl.tensordot(nl.ones(2), nl.ones(2), [[0]]), nl.ShapeError, "two lists"),
    "no tensor": (lambda: nl.tensordot(nl.ones(2), 3), nl.DTypeError, "b must be a Tensor, got int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
