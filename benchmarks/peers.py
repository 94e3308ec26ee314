"""Which peers are installed, each set up for its best: threads, compiled functions, donated buffers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import neurlang as nl

torch: Any = None  # the module, or None where it is not installed or not wanted
jax: Any = None
onnx: Any = None  # builds the models for the next two
onnxruntime: Any = None
openvino: Any = None
thread_count = 1
with_torch_compile = False

Call = Callable[[], Any]


def setup(threads: int, without: Iterable[str]) -> None:
    """Imports the installed peers that are wanted and gives each the same number of threads."""
    global torch, jax, onnx, onnxruntime, openvino, thread_count, with_torch_compile
    left_out = set(without)
    thread_count = threads
    nl.set_num_threads(threads)
    onnx = find("onnx")
    onnxruntime = None if "ONNX Runtime" in left_out else find("onnxruntime")
    openvino = None if "OpenVINO" in left_out else find("openvino")
    torch = None if "torch" in left_out else find("torch")
    jax = None if "jax" in left_out else find("jax")
    if torch is not None:
        torch.set_num_threads(threads)
        with_torch_compile = "torch.compile" not in left_out
        logging.getLogger("torch._inductor").setLevel(logging.ERROR)


def find(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def contenders(
    form: Callable[..., Any],
    *arrays: np.ndarray,
    numpy: Callable[..., Any] | None = None,
    jax_form: Callable[..., Any] | None = None,
) -> dict[str, Call]:
    """One function for everyone. `form(lib, *tensors)` is in PyTorch's idiom and serves us and torch alike."""
    calls = ours(form, *arrays)
    if numpy is not None:
        calls["NumPy"] = lambda: numpy(*arrays)
    if torch is not None:
        calls |= torch_calls(form, *arrays)
    if jax is not None and jax_form is not None:
        calls["JAX"] = jax_call(jax_form, *arrays)
    return calls


def ours(form: Callable[..., Any], *arrays: np.ndarray) -> dict[str, Call]:
    tensors = [nl.tensor(a) for a in arrays]
    traced = nl.trace(lambda *t: form(nl, *t))
    return {"neurlang": lambda: form(nl, *tensors), "neurlang traced": lambda: traced(*tensors)}


def torch_calls(form: Callable[..., Any], *arrays: np.ndarray) -> dict[str, Call]:
    tensors = [torch.tensor(a) for a in arrays]
    calls = {"torch": without_gradients(lambda: form(torch, *tensors))}
    if with_torch_compile:
        compiled = torch.compile(lambda *t: form(torch, *t))
        calls["torch.compile"] = without_gradients(lambda: compiled(*tensors))
    return calls


def without_gradients(call: Call) -> Call:
    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


def jax_call(form: Callable[..., Any], *arrays: np.ndarray) -> Call:
    compiled = jax.jit(form)
    tensors = [jax.numpy.asarray(a) for a in arrays]
    return lambda: jax.block_until_ready(compiled(*tensors))


# --- forward and backward ---


def gradients(
    form: Callable[..., Any], seed: np.ndarray, *arrays: np.ndarray, jax_form: Callable[..., Any] | None = None
) -> dict[str, Call]:
    """The function and its gradients by all float operands, for the gradient `seed`; all of them are the result."""
    calls = {}
    step = gradient_step(nl, nl.grad, lambda *t: form(nl, *t))
    traced = nl.trace(step)
    mine = [nl.tensor(a) for a in (seed, *arrays)]
    calls["neurlang"] = lambda: step(*mine)
    calls["neurlang traced"] = lambda: traced(*mine)
    if torch is not None:
        theirs = [torch.tensor(a) for a in (seed, *arrays)]
        eager = gradient_step(torch, torch.autograd.grad, lambda *t: form(torch, *t))
        calls["torch"] = lambda: eager(*theirs)
        if with_torch_compile:
            compiled = gradient_step(torch, torch.autograd.grad, torch.compile(lambda *t: form(torch, *t)))
            calls["torch.compile"] = lambda: compiled(*theirs)
    if jax is not None and jax_form is not None:
        calls["JAX"] = jax_call(jax_gradient(jax_form), seed, *arrays)
    return calls


def gradient_step(lib: Any, grad: Callable[..., Any], forward: Callable[..., Any]) -> Callable[..., Any]:
    def step(seed: Any, *tensors: Any) -> Any:
        inputs = [t.detach().requires_grad_() if t.is_floating_point() else t for t in tensors]
        out = forward(*inputs)
        return out.detach(), *grad(out, [t for t in inputs if t.requires_grad], seed)

    return step


def jax_gradient(form: Callable[..., Any]) -> Callable[..., Any]:
    def step(seed: Any, *tensors: Any) -> Any:
        floats = [i for i, t in enumerate(tensors) if jax.numpy.issubdtype(t.dtype, jax.numpy.floating)]

        def of_floats(*values: Any) -> Any:
            given = dict(zip(floats, values, strict=True))
            return form(*(given.get(i, t) for i, t in enumerate(tensors)))

        out, pull = jax.vjp(of_floats, *(tensors[i] for i in floats))
        return out, *pull(seed)

    return step


# --- other runtimes ---


def bound(form: Callable[..., Any], *tensors: Any) -> Call:
    return lambda: form(torch, *tensors)


def channels_last(*arrays: np.ndarray) -> list[Any]:
    layout = torch.channels_last if arrays[0].ndim == 4 else torch.channels_last_3d
    return [torch.tensor(a).contiguous(memory_format=layout) for a in arrays]


def onnx_model(op: str, x: np.ndarray, *weights: np.ndarray, **attributes: Any) -> bytes:
    """A model of one node, with constant weights; empty without the package that makes it."""
    if onnx is None:
        return b""
    constants = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    node = onnx.helper.make_node(op, ["x", *(c.name for c in constants)], ["y"], **attributes)
    return onnx_file([node], constants, x)


def onnx_file(nodes: list[Any], constants: list[Any], x: np.ndarray) -> bytes:
    """A model of nodes that take "x" and give the last one's result."""
    float32 = onnx.TensorProto.FLOAT
    x_info = onnx.helper.make_tensor_value_info("x", float32, x.shape)
    y_info = onnx.helper.make_tensor_value_info(nodes[-1].output[0], float32, None)
    graph = onnx.helper.make_graph(nodes, "graph", [x_info], [y_info], constants)
    opset = onnx.helper.make_opsetid("", 17)
    model: bytes = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return model


def onnx_calls(model: bytes, x: np.ndarray) -> dict[str, Call]:
    """A model of one input and one output for those that run such files."""
    calls = {}
    if model and onnxruntime is not None:
        calls["ONNX Runtime"] = onnxruntime_call(model, x)
    if model and openvino is not None:
        calls["OpenVINO"] = openvino_call(model, x, "")
        if x.ndim > 3:
            calls["OpenVINO channels last"] = openvino_call(model, x, "NHWC" if x.ndim == 4 else "NDHWC")
    return calls


def onnxruntime_call(model: bytes, x: np.ndarray) -> Call:
    """With its output's memory kept, as OpenVINO does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    y = session.run(None, {session.get_inputs()[0].name: x})[0]
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return y

    return run


def openvino_call(model: bytes, x: np.ndarray, layout: str) -> Call:
    """In float32 also where the processor has bfloat16; a layout of channels last spares their change at either end."""
    core = openvino.Core()
    network = core.read_model(model)
    if layout:
        convert = openvino.preprocess.PrePostProcessor(network)
        images = len(network.output().partial_shape) == x.ndim
        for end in (convert.input(), convert.output()) if images else (convert.input(),):
            end.tensor().set_layout(openvino.Layout(layout))
            end.model().set_layout(openvino.Layout(layout[0] + "C" + layout[1:-1]))
        network = convert.build()
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": thread_count, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))

    def run() -> np.ndarray:
        request.infer()
        y = request.get_output_tensor().data
        return np.moveaxis(y, -1, 1) if layout and y.ndim == x.ndim else y

    return run
