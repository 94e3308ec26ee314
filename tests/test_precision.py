"""The precision of convolutions: what it chooses, that calls keep it, and to whom it belongs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
from neurlang import _tensor

TILES = {"highest": 1, "high": 2, "medium": 4}
GEOMETRY = (1, 1, 1, 1, 1, 1, 1)  # stride, padding, dilation, groups


@pytest.fixture
def images(rng: np.random.Generator) -> nl.Tensor:
    return nl.tensor(rng.standard_normal((2, 32, 16, 13)).astype(np.float32))


@pytest.fixture
def weight(rng: np.random.Generator) -> nl.Tensor:
    return nl.tensor(rng.standard_normal((36, 32, 3, 3)).astype(np.float32))


def layer(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
    return nl.conv2d(x, w, padding=1)


def at(precision: str, x: nl.Tensor, w: nl.Tensor) -> bytes:
    """The bits of the row with the attribute that a precision stands for."""
    return bits(_tensor._conv2d(x, w, *GEOMETRY, TILES[precision]))


def bits(x: nl.Tensor) -> bytes:
    return x.detach().numpy().tobytes()


def test_each_name_has_its_bits(images: nl.Tensor, weight: nl.Tensor) -> None:
    seen = set()
    for precision in TILES:
        with nl.set_conv_precision(precision):
            assert nl.get_conv_precision() == precision
            assert bits(layer(images, weight)) == at(precision, images, weight)
            seen.add(bits(layer(images, weight)))
    assert len(seen) == 3
    assert nl.get_conv_precision() == "high"


def test_one_object_in_nested_and_later_blocks() -> None:
    medium = nl.set_conv_precision("medium")
    nl.set_conv_precision("highest")
    with medium, medium:
        assert nl.get_conv_precision() == "medium"
    assert nl.get_conv_precision() == "high"
    with medium:
        assert nl.get_conv_precision() == "medium"
    assert nl.get_conv_precision() == "high"


def test_functions_keep_what_they_were_made_with() -> None:
    medium = nl.set_conv_precision("medium")
    asked = medium(nl.get_conv_precision)
    assert nl.get_conv_precision() == "high" and asked() == "medium"
    with medium, nl.set_conv_precision("highest"):
        assert medium(nl.get_conv_precision)() == asked() == "medium" and nl.get_conv_precision() == "highest"
    assert nl.get_conv_precision() == "high"
    with pytest.raises(TypeError):
        medium(len)(3)
    assert nl.get_conv_precision() == "high"


def test_it_holds_until_it_is_changed() -> None:
    nl.set_conv_precision("medium")
    with nl.set_conv_precision("highest"), nl.set_conv_precision("high"):
        assert nl.get_conv_precision() == "high"
    assert nl.get_conv_precision() == "medium"
    with pytest.raises(ZeroDivisionError), nl.set_conv_precision("highest"):
        raise ZeroDivisionError
    assert nl.get_conv_precision() == "medium"
    nl.set_conv_precision("high")


@pytest.mark.parametrize("name", ["low", "Medium", 4, None, "", ["high"]])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(ValueError, match="'highest', 'high', 'medium'"):
        nl.set_conv_precision(name)  # type: ignore[arg-type]
    assert nl.get_conv_precision() == "high"


def test_it_belongs_to_its_thread() -> None:
    seen = []
    with nl.set_conv_precision("medium"):
        thread = threading.Thread(target=lambda: seen.append(nl.get_conv_precision()))
        thread.start()
        thread.join()
        assert seen == ["high"]


def test_a_block_on_another_thread_brings_back_what_held_there() -> None:
    medium, seen = nl.set_conv_precision("medium"), []

    def work() -> None:
        nl.set_conv_precision("highest")
        with medium:
            seen.append(nl.get_conv_precision())
        seen.append(nl.get_conv_precision())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["medium", "highest"]
    with medium:
        pass
    assert nl.get_conv_precision() == "high"


def test_shapes_that_do_not_gain_take_the_next_one(rng: np.random.Generator) -> None:
    """Too small maps, stride 2, few channels, another kernel, float64."""
    cases = [((1, 32, 8, 8), 3, 1, "f4"), ((1, 32, 30, 30), 3, 2, "f4"), ((1, 8, 16, 16), 3, 1, "f4")]
    for shape, kernel, stride, dtype in [*cases, ((1, 32, 16, 16), 5, 1, "f4"), ((1, 32, 16, 16), 3, 1, "f8")]:
        x, w = (nl.tensor(rng.standard_normal(s).astype(dtype)) for s in (shape, (32, shape[1], kernel, kernel)))
        with nl.set_conv_precision("medium"):
            got = nl.conv2d(x, w, stride=stride)
        assert bits(got) == bits(nl.conv2d(x, w, stride=stride))


def test_gradients_follow_the_call(images: nl.Tensor, weight: nl.Tensor, rng: np.random.Generator) -> None:
    """Backward outside of the block, and the gradient's own gradient."""
    x, w = images.clone().requires_grad_(), weight.clone().requires_grad_()
    with nl.set_conv_precision("medium"):
        y = layer(x, w)
    g = nl.tensor(rng.standard_normal(y.shape).astype(np.float32), requires_grad=True)
    by_x, by_w = nl.grad((y * g).sum(), (x, w), create_graph=True)
    assert bits(by_x) == bits(_tensor._conv2d_input(g, w, *GEOMETRY, 4, *x.shape[2:]))
    assert bits(by_x) != bits(_tensor._conv2d_input(g, w, *GEOMETRY, 2, *x.shape[2:]))
    assert bits(by_w) == bits(_tensor._conv2d_weight(x, g, *GEOMETRY, 2, 3, 3))
    direction = nl.tensor(rng.standard_normal(x.shape).astype(np.float32))
    (by_g,) = nl.grad((by_x * direction).sum(), (g,))
    assert bits(by_g) == at("medium", direction, w)


def test_traces_and_frozen_programs_have_the_bits_of_eager(images: nl.Tensor, weight: nl.Tensor) -> None:
    traced = nl.trace(layer)
    frozen = {}
    for precision in (*TILES, *TILES):
        with nl.set_conv_precision(precision):
            assert bits(traced(images, weight)) == at(precision, images, weight)
            frozen[precision] = nl.trace(lambda x: layer(x, weight)).freeze(images)
    for precision, program in frozen.items():  # and stays as it was frozen
        assert bits(program(images)) == at(precision, images, weight)


def test_relatives_of_conv2d_follow(rng: np.random.Generator) -> None:
    x, w = (nl.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((1, 32, 16, 16), (32, 32, 3, 3)))
    volume, kernel = x.reshape(1, 32, 1, 16, 16), w.reshape(32, 32, 1, 3, 3)
    forms = {
        "transposed": lambda: nl.conv_transpose2d(x, w, padding=1),
        "three axes": lambda: nl.functional.conv3d(volume, kernel, padding=(0, 1, 1)),
        "one image": lambda: nl.conv2d(x[0], w, padding=1),
    }
    for name, form in forms.items():
        usual = form()
        with nl.set_conv_precision("medium"):
            assert bits(form()) != bits(usual), name
            scale = abs(x.numpy()).max() * abs(w.numpy()).sum((1, 2, 3)).max()
            assert_close(form().numpy(), usual.numpy(), "winograd of 4x4 tiles", n=32, scale=scale, what=name)
    x, w = x.half(), w.half()
    with nl.set_conv_precision("medium"):
        assert bits(layer(x, w)) == bits(layer(x.float(), w.float()).half())


def test_images_of_a_batch_have_the_bits_of_one(images: nl.Tensor, weight: nl.Tensor) -> None:
    with nl.set_conv_precision("medium"):
        assert bits(layer(images, weight)) == b"".join(bits(layer(images[i : i + 1], weight)) for i in range(2))
