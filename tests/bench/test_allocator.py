import ctypes
from collections.abc import Callable

import pytest

from bench import allocator
from bench.allocator import keep_memory

# How many pages the system had to map while a block of 64 MiB was taken, written to and freed ten times.
FAULTS = """
import ctypes, os, resource
from bench.allocator import keep_memory
if {keep}:
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = libc.malloc(2**26)
    libc.memset(block, 1, 2**26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")


@glibc
def test_freed_memory_is_used_again(plain_python: Callable[..., str]) -> None:
    plain, kept = (int(plain_python(FAULTS.format(keep=keep))) for keep in (False, True))
    assert kept < plain / 2


@glibc
def test_what_the_environment_sets_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: type("C", (), {"mallopt": _Recorder(called)})())
    monkeypatch.setenv("MALLOC_TOP_PAD_", "65536")
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    assert keep_memory()
    assert [parameter for parameter, _ in called] == [-3, -1]


class _Recorder:
    def __init__(self, called: list[tuple[int, int]]) -> None:
        self.called = called

    def __call__(self, parameter: int, value: int) -> int:
        self.called.append((parameter, value))
        return 1


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not keep_memory()
