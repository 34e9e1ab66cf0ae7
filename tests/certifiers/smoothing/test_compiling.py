import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.certification import as_asked
from bench.options import Options
from certifiers import create
from certifiers.smoothing import check_compiler

#: In a process of its own: the types that tests check at every call cannot be compiled.
COMPILED = """
import torch
from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise, check_compiler, compiling, count_votes, votes
from certifiers.smoothing.noise import ESTIMATION
from ensembles import Ensemble, MaxMargin, architectures

check_compiler()
shape = (1, 4, 4)
ensemble = Ensemble([architectures.create("mlp", input_shape=shape, classes=3, seed=seed) for seed in range(3)]).eval()
both = [ensemble, ensemble.with_aggregation(MaxMargin())]
asked = []

def counting(member):
    return lambda x: asked.append(len(x)) or compiling.compiled(member)(x)

votes.compiled = counting

def counted(compile_members):
    noise = GaussianNoise(0.5, KeyedRandomness(0, (3,)))
    image, samples = torch.full(shape, 0.5), 2 * CHUNK + 70
    return count_votes(both, image, noise, 0, ESTIMATION, samples, compile_members=compile_members)

with torch.no_grad():
    plain = counted(False)
    assert asked == [], asked
    ours = counted(True)
    assert asked == [CHUNK] * 6, "whole batches only"
    # Last bits may differ, and with them a vote that is a tie but for them.
    assert all(int((one - other).abs().sum()) <= 2 for one, other in zip(plain, ours)), (plain, ours)
    for member in ensemble.members:
        member.head.weight.fill_(0.0)
        member.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    assert [int(own[2]) for own in counted(True)] == [2 * CHUNK + 70] * 2, "weights are read anew"
print("the same votes")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_members_count_the_same_votes() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=root, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "the same votes"), done.stderr


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> object:
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.raises(ValueError, match=r"be compiled here: No working C\+\+ compiler found\. .* without --compile"):
        check_compiler()


@pytest.mark.parametrize("name", ["smoothing", "smoothing-adaptive", "smoothing-eas", "smoothing-l1"])
def test_the_command_line_asks_for_it_and_it_is_in_no_key(name: str, tmp_path: Path) -> None:
    own, options = create(name, sigma=0.5), Options(tmp_path, batch_size=64, compile_networks=True)
    asked = as_asked(own, options)
    assert (asked.batch_size, asked.compile_members) == (64, True)
    assert asked.describe() == own.describe()
    lipschitz = create("lipschitz")
    assert as_asked(lipschitz, options) is lipschitz
