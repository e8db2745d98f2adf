"""As much of CuPy as the project uses, on the host: arrays that no NumPy function accepts, and the `.cu` code run
by `cuda_on_host.h`. An array is surrounded by guard bytes, checked after every launch, and starts as garbage.
Functions take what `cupy_signatures` says that CuPy's take, and give arrays where NumPy's give numbers.
"""

import ctypes
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from cupy_signatures import FUNCTIONS, METHODS, VIEWS, reduceat
from cupy_streams import Stream, cuda_on_host

HERE = Path(__file__).parent
BUILDS = Path(tempfile.gettempdir()) / "lithostream-cuda-on-host"
GUARD = 512
POISON = 0xA5
LARGEST_GRID = (2**31 - 1, 65535, 65535)
MOST_THREADS, MOST_SHARED = 1024, 48 << 10
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
order = 0
"""How blocks and threads are ordered: 0 forwards, 1 backwards, above: shuffled by this seed."""

_memory: list[npt.NDArray[np.uint8]] = []
moved: dict[str, list[int]] = {"up": [], "down": []}
"""Bytes of each copy from the host and to it, since a test last cleared the lists."""


class ndarray:
    """An array of the device: only `get` brings it to NumPy."""

    def __init__(self, host: npt.NDArray[Any]) -> None:
        self._host = host
        self.device = SimpleNamespace(id=0)

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    T = property(lambda self: ndarray(self._host.T))

    @property
    def flags(self) -> SimpleNamespace:
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self._host.ctypes.data)

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __iter__(self) -> Iterator["ndarray"]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> "ndarray":
        return ndarray(np.asarray(self._host[_unwrap(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_unwrap(key)] = _unwrap(value)

    def get(self, *, stream: Stream | None = None, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        moved["down"].append(self.nbytes)
        if out is None:
            return self._host.copy()
        assert out.flags.c_contiguous and out.dtype == self.dtype and out.shape == self.shape
        out[...] = self._host
        return out

    def set(self, value: npt.NDArray[Any], *, stream: Stream) -> None:
        assert self._host.flags.c_contiguous, "CuPy sets contiguous arrays alone"
        assert value.flags.c_contiguous and value.shape == self.shape and value.dtype == self.dtype
        moved["up"].append(self.nbytes)
        self._host[...] = value
        stream.will_read(value)

    def item(self) -> Any:
        return self._host.item()

    def fill(self, value: Any) -> None:
        self._host.fill(value)


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, tuple):
        return tuple(_unwrap(v) for v in value)
    if isinstance(value, list):
        return [_unwrap(v) for v in value]
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _wrap(value: Any) -> Any:
    if isinstance(
        value, np.ndarray | np.generic | bool | int | float
    ):  # numbers of NumPy are arrays of no axis
        return asarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(_wrap(v) for v in value)
    return value


def _through(function: Callable[..., Any], like: Callable[..., None] | None = None) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if like is not None:
            signature(like).bind(*args, **kwargs)
        return _wrap(function(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()}))

    return call


def _view(function: Callable[..., Any], like: Callable[..., None]) -> Callable[..., Any]:
    def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        signature(like).bind(self, *args, **kwargs)
        found = function(self._host, *map(_unwrap, args), **kwargs)
        return ndarray(found) if np.shares_memory(found, self._host) else asarray(found)

    return call


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> ndarray:
        function(self._host, _unwrap(other))
        return self

    return call


BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"]
for _name in [
    *BINARY,
    *["lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "radd", "rsub", "rmul", "rtruediv"],
]:
    setattr(ndarray, f"__{_name}__", _through(getattr(np.ndarray, f"__{_name}__")))
for _name in BINARY:
    setattr(ndarray, f"__i{_name}__", _in_place(getattr(np.ndarray, f"__i{_name}__")))
for _name, _like in METHODS.items():
    setattr(ndarray, _name, _through(getattr(np.ndarray, _name), _like))
for _name, _like in VIEWS.items():
    setattr(ndarray, _name, _view(getattr(np.ndarray, _name), _like))
ndarray.__module__ = "cupy"


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    room = np.full(count * kind.itemsize + 3 * GUARD, POISON, np.uint8)
    start = GUARD + -room.ctypes.data % GUARD
    _memory.append(room)
    room[start + count * kind.itemsize :] = room[:start] = POISON
    body = room[start : start + count * kind.itemsize]
    body[:] = 0xFF
    _bounds[id(room)] = (start, start + body.size)
    return ndarray(body.view(kind).reshape(shape))


_bounds: dict[int, tuple[int, int]] = {}


def check_guards() -> None:
    """Raise if a kernel wrote beside an array."""
    for room in _memory:
        start, stop = _bounds[id(room)]
        if (room[:start] != POISON).any() or (room[stop:] != POISON).any():
            raise RuntimeError("a kernel wrote outside its arrays")


def forget() -> None:
    """Drop the guards of all arrays made so far."""
    _memory.clear()
    _bounds.clear()


def asarray(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else asarray(value._host.astype(dtype))
    host = np.asarray(value, dtype)
    made = empty(host.shape, host.dtype)
    made._host[...] = host
    return made


def array(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    return asarray(value._host if isinstance(value, ndarray) else value, dtype)


def ascontiguousarray(value: ndarray) -> ndarray:
    return value if value._host.flags.c_contiguous else asarray(np.ascontiguousarray(value._host))


def _brought(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    """Do what `cupy.asarray` does, and count it."""
    made = asarray(value, dtype)
    if not isinstance(value, ndarray):
        moved["up"].append(made.nbytes)
    return made


def asnumpy(value: ndarray) -> npt.NDArray[Any]:
    return value.get()


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    return full(shape, 0, dtype)


def ones(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    return full(shape, 1, dtype)


def full(shape: int | tuple[int, ...], value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    made = empty(shape, np.asarray(value).dtype if dtype is None else dtype)
    made.fill(value)
    return made


class RawModule:
    """CUDA C++ source compiled for the host; kept between processes by the hash of all it is made of."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        names = KERNEL.findall(code)
        entries = "".join(
            f'extern "C" const char* emulate_{n}(const unsigned* s, size_t b, uint64_t o, void** a, const char* k, '
            f"const size_t* z, size_t c) {{ return emulator::emulate({n}, s, b, o, a, k, z, c); }}\n"
            for n in names
        )
        folders = [Path(option[2:]) for option in options if option.startswith("-I")]
        headers = [p for folder in [HERE, *folders] for p in sorted(folder.glob("*.h"))]
        text = f'#include "cuda_on_host.h"\n#line 1 "cuda.cu"\n{code}\n{entries}'
        key = hashlib.sha256(text.encode() + b"".join(p.read_bytes() for p in headers)).hexdigest()[:24]
        library = BUILDS / f"{key}.so"
        if not library.is_file():
            _compile(text, [HERE, *folders], library)
        self._library = ctypes.CDLL(str(library))
        self._names = names

    def get_function(self, name: str) -> Callable[..., None]:
        if name not in self._names:
            raise KeyError(f"no kernel {name}: {self._names}")
        entry = self._library[f"emulate_{name}"]
        entry.restype = ctypes.c_char_p

        def launch(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            args: tuple[Any, ...],
            *,
            shared_mem: int = 0,
            stream: Stream | None = None,
        ) -> None:
            shape = [*grid, 1, 1][:3] + [*block, 1, 1][:3]
            _check_launch(name, shape, shared_mem)
            held = [_argument(name, k, value) for k, value in enumerate(args)]
            kinds = "".join(kind for kind, _ in held).encode()
            sizes = (ctypes.c_size_t * len(held))(*(value.nbytes for _, value in held))
            places = (ctypes.c_void_p * len(held))(*(value.ctypes.data for _, value in held))
            failure = entry(
                (ctypes.c_uint * 6)(*map(int, shape)),
                ctypes.c_size_t(shared_mem),
                ctypes.c_uint64(order),
                places,
                kinds,
                sizes,
                ctypes.c_size_t(len(held)),
            )
            if failure is not None:
                raise RuntimeError(f"{name}: {failure.decode()}")
            check_guards()

        return launch


class Pool:
    """Memory that CuPy keeps for later: how often it was given back, and the most there may be; 0 is no limit."""

    def __init__(self) -> None:
        self.given_back = self.limit = 0

    def get_limit(self) -> int:
        return self.limit

    def free_all_blocks(self) -> None:
        self.given_back += 1


def _check_launch(name: str, shape: list[int], shared_mem: int) -> None:
    """Raise where a driver would; a kernel that needs more shared memory must ask for it first."""
    grid, block = shape[:3], shape[3:]
    if any(size > most for size, most in zip(grid, LARGEST_GRID, strict=True)) or min(shape) < 1:
        raise ValueError(f"{name}: no grid is {grid} by {block}")
    if int(np.prod(block)) > MOST_THREADS or shared_mem > MOST_SHARED:
        raise ValueError(f"{name}: no block has {block} threads and {shared_mem} bytes of shared memory")


def _argument(name: str, index: int, value: Any) -> tuple[str, npt.NDArray[Any]]:
    if isinstance(value, ndarray):
        return "p", np.array([value.data.ptr], np.uint64)
    if isinstance(value, np.generic):
        return ("f" if value.dtype.kind == "f" else "i"), np.array([value])
    raise TypeError(
        f"{name}, argument {index}: expected an array or a NumPy scalar, got {type(value).__name__}"
    )


def _compile(text: str, folders: list[Path], library: Path) -> None:
    BUILDS.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILDS) as scratch:
        source = Path(scratch) / "kernel.cpp"
        source.write_text(text, encoding="utf-8")
        made = source.with_suffix(".so")
        flags = [
            "-std=c++20",
            "-O1",
            "-g",
            "-fPIC",
            "-shared",
            "-ffp-contract=off",
            "-Wall",
            "-Wno-unknown-pragmas",
        ]
        command = ["g++", *flags, *(f"-I{f}" for f in folders), str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the host compiler refuses the kernels:\n{done.stderr[:4000]}")
        made.replace(library)


def module() -> ModuleType:
    """Return the stand-in as a module named cupy."""
    made = ModuleType("cupy")
    for name in (
        "ndarray",
        "empty",
        "asarray",
        "array",
        "ascontiguousarray",
        "asnumpy",
        "zeros",
        "ones",
        "full",
        "RawModule",
    ):
        setattr(made, name, globals()[name])
    for name, like in FUNCTIONS.items():
        setattr(made, name, _through(getattr(np, name), like))
    made.asarray = _brought  # type: ignore[attr-defined]
    made.add = SimpleNamespace(reduceat=_through(np.add.reduceat, reduceat))  # type: ignore[attr-defined]
    made.cuda = cuda_on_host()  # type: ignore[attr-defined]
    pool = Pool()
    made.get_default_memory_pool = lambda: pool  # type: ignore[attr-defined]
    return made


@contextmanager
def ordered(how: int) -> Iterator[None]:
    """Run what is launched inside in another order of blocks and threads."""
    global order
    before, order = order, how
    try:
        yield
    finally:
        order = before
