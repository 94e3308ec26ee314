"""Finding a BLAS library: simulated folders, files that are none, what is told of threads, what is reported."""

from __future__ import annotations

import gc
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import neurlang as nl
from neurlang import blas

# gemm as plain loops, with integers of the width that its spelling tells; to every element it adds what it was told of
# threads.
LIBRARY = """
static double told = 0;
void openblas_set_num_threads(int n) { told = n; }
#define GEMM(T, name) \\
    void name(const char* ta, const char* tb, const INT* m, const INT* n, const INT* k, const T* alpha, \\
              const T* a, const INT* lda, const T* b, const INT* ldb, const T* beta, T* c, const INT* ldc) { \\
        for (INT j = 0; j < *n; j++) for (INT i = 0; i < *m; i++) { \\
            T sum = 0; \\
            for (INT l = 0; l < *k; l++) { \\
                T x = *ta == 'N' ? a[i + l * *lda] : a[l + i * *lda]; \\
                sum += x * (*tb == 'N' ? b[l + j * *ldb] : b[j + l * *ldb]); \\
            } \\
            c[i + j * *ldc] = *alpha * sum + (T)told; \\
        } \\
    }
GEMM(float, SPELLING_s)
GEMM(double, SPELLING_d)
"""


@pytest.fixture(autouse=True)
def own_kernels_afterwards() -> Iterator[None]:
    yield
    nl.set_gemm(blas.OWN)


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a library of one spelling."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler: a simulated BLAS library cannot be made")
    spelling = getattr(request, "param", "{}_")
    text = LIBRARY.replace("INT", "long long" if "64" in spelling else "int")
    for letter in "sd":
        text = text.replace(f"SPELLING_{letter}", spelling.format(f"{letter}gemm"))
    (tmp_path / "blas.c").write_text(text)
    command = [cc, "-O1", "-shared", "-fPIC", tmp_path / "blas.c", "-o", tmp_path / "libopenblas.so.0"]
    subprocess.run(command, check=True)
    return tmp_path


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("folder", blas.SPELLINGS, indirect=True)
def test_a_library_is_found_used_and_told_of_threads(folder: Path, threads: int, rng: np.random.Generator) -> None:
    found = blas.find("openblas", [folder / "absent", folder])
    assert found is not None and Path(found.path) == folder / "libopenblas.so.0" and found.set_threads
    a, b = (rng.integers(-9, 9, shape) for shape in ((2, 3, 5, 7), (3, 7, 4)))
    nl.set_gemm(found.path)
    assert nl.get_gemm() == found.path
    for dtype in (nl.float32, nl.float64, nl.float16):
        got = nl.tensor(a, dtype=dtype) @ nl.tensor(b, dtype=dtype)
        assert got.dtype is dtype
        np.testing.assert_array_equal(got.numpy(), a @ b + threads)  # 16 bits hold these numbers
    np.testing.assert_array_equal((nl.tensor(a) @ nl.tensor(b)).numpy(), a @ b)  # integers stay with us
    nl.set_gemm(blas.OWN)
    np.testing.assert_array_equal((nl.tensor(a).float() @ nl.tensor(b).float()).numpy(), a @ b)


def test_compiled_programs_follow(folder: Path, rng: np.random.Generator) -> None:
    a, b = (nl.tensor(rng.integers(-9, 9, shape)).float() for shape in ((5, 7), (7, 4)))
    layer = nl.trace(lambda: nl.relu(a @ b) * 2)
    want = np.maximum(a.numpy() @ b.numpy(), 0) * 2
    np.testing.assert_array_equal(layer().numpy(), want)
    nl.set_gemm(str(folder / "libopenblas.so.0"))
    told = nl.get_num_threads()
    np.testing.assert_array_equal(layer().numpy(), np.maximum(a.numpy() @ b.numpy() + told, 0) * 2)
    nl.set_gemm(blas.OWN)
    np.testing.assert_array_equal(layer().numpy(), want)
    assert layer.counts.compiled == 1


def test_products_of_picked_rows_follow(folder: Path, rng: np.random.Generator) -> None:
    """Compiled, one step packs the rows that an index names; the library gets them as in eager code."""
    x, w = (nl.tensor(rng.integers(-9, 9, shape)).float() for shape in ((50, 7), (7, 4)))
    index = nl.tensor(rng.integers(-50, 50, 300))

    def layer() -> nl.Tensor:
        return nl.relu(x[index] @ w)

    compiled = nl.trace(layer)
    compiled()
    assert "index_matmul" in {getattr(step, "node", None) and step.node.op for step in compiled.program.schedule.steps}
    nl.set_gemm(str(folder / "libopenblas.so.0"))
    np.testing.assert_array_equal(compiled().numpy(), layer().numpy())
    index[3] = 50
    with pytest.raises(IndexError, match="50"):
        compiled().numpy()


SLOW = """
#include <unistd.h>
void sgemm_(const char* ta, const char* tb, const int* m, const int* n, const int* k, const float* alpha,
            const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c,
            const int* ldc) { usleep(200000); for (int i = 0; i < *m * *n; i++) c[i] = 7; }
void dgemm_(void) {}
"""


def test_a_library_stays_while_it_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "slow.c").write_text(SLOW)
    subprocess.run(["cc", "-shared", "-fPIC", folder / "slow.c", "-o", folder / "slow.so"], check=True)
    monkeypatch.chdir(folder)
    nl.set_gemm("slow.so")
    assert nl.get_gemm() == str(folder / "slow.so")
    results: list[list[list[float]]] = []
    x = nl.ones(3, 2, 2)
    other = threading.Thread(target=lambda: results.append((x @ x)[2].tolist()))
    other.start()
    time.sleep(0.05)
    nl.set_gemm(blas.OWN)
    gc.collect()
    other.join()
    assert results == [[[7, 7], [7, 7]]]


def test_absence_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libopenblas.so.0").write_bytes(b"no library")
    monkeypatch.setattr(blas, "folders", lambda: [tmp_path, tmp_path / "absent"])
    assert all(blas.find(name) is None for name in blas.PROVIDERS)
    config = nl.show_config("dicts")
    assert config is not None and set(config["gemm"]["found"].values()) == {None}
    for name in blas.PROVIDERS:
        with pytest.raises(FileNotFoundError, match=f"no library '{name}'.*{tmp_path.name}"):
            nl.set_gemm(name)
    assert nl.get_gemm() == blas.OWN


def test_what_is_no_library_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a file nor one of neurlang, mkl"):
        nl.set_gemm("cublas")
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(RuntimeError, match=r"text\.so"):
        nl.set_gemm(str(tmp_path / "text.so"))
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run([shutil.which("cc") or "cc", "-shared", tmp_path / "empty.c", "-o", tmp_path / "e.so"], check=True)
    with pytest.raises(ValueError, match="has no sgemm and dgemm"):
        nl.set_gemm(str(tmp_path / "e.so"))
    assert nl.get_gemm() == blas.OWN


def test_show_config_names_what_is_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nl.set_gemm(str(folder / "libopenblas.so.0"))
    assert nl.show_config() is None
    text = capsys.readouterr().out
    assert f"used: {folder / 'libopenblas.so.0'}" in text and f"level: {nl.isa()}" in text
    with pytest.raises(ValueError, match="mode"):
        nl.show_config("json")
