"""Page faults, size and garbage of a process that runs a network again and again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from torch import nn
from bench.machine import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
convolutions = [nn.Conv2d(i, o, 1) for i, o in ((3, 64), (64, 32), (32, 64), (64, 3))]
network = nn.Sequential(*(layer for c in convolutions for layer in (c, nn.GELU())))
x = torch.rand(1, 3, 512, 512)  # tensors of 67 MB, beyond what glibc keeps by itself

def pages():
    return int(open("/proc/self/statm").read().split()[1])

def run(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        for _ in range(times):
            network(x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

run(3)
start = pages()
print(run(10), pages() - start)
"""


FROZEN = """
import gc, torch, weakref
from bench.machine import leave_modules_out_of_collections

leave_modules_out_of_collections()
first = gc.get_freeze_count()

class Node:
    pass

node = Node()
node.itself = node  # a cycle, as a method's network may be in
gone = weakref.ref(node)
leave_modules_out_of_collections()
assert gc.get_freeze_count() == first > 100_000
del node
gc.collect()
assert gone() is None
"""


def test_collections_pass_over_modules_and_no_later_cycle() -> None:
    subprocess.run([sys.executable, "-c", FROZEN], check=True)


def faults_and_growth(how: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    faults, growth = map(int, done.stdout.split())
    return faults, growth


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    by_default, _ = faults_and_growth("default")
    kept, growth = faults_and_growth("keep")
    assert kept < 0.3 * by_default
    assert growth < 200e6 / 4096
