from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise, count_votes
from certifiers.smoothing.noise import ESTIMATION, SELECTION
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures

SHAPE, SIGMA, SAMPLES = (1, 8, 8), 0.5, 1203
BATCH_SIZES = [1, 7, 100, 500, 1000, 1200]  # a chunk is 500


class Recorder(nn.Module):
    """Keeps the inputs it sees, and answers as told."""

    def __init__(self, answer: Any = lambda x: x.flatten(1)[:, :3]) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.answer(x)

    @property
    def inputs(self) -> Tensor:
        return torch.cat(self.seen)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def votes(classifiers: Sequence[nn.Module], image: Tensor, samples: int = SAMPLES, **options: Any) -> list[Tensor]:
    noise = GaussianNoise(SIGMA, KeyedRandomness(options.pop("seed", 0), (11, 12)))
    return count_votes(
        classifiers, image, noise, options.pop("row", 0), options.pop("stream", ESTIMATION), samples, **options
    )


def member(seed: int, name: str = "mlp") -> nn.Module:
    options = {"hidden": (16,)} if name == "mlp" else {}
    return architectures.create(name, input_shape=SHAPE, classes=10, seed=seed, **options).eval()


def noisy_inputs(image: Tensor, samples: int, **options: Any) -> Tensor:
    recorder = Recorder()
    votes([recorder], image, samples, **options)
    return recorder.inputs


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_classifier_sees_the_protocols_noise_whatever_the_batch_size(batch_size: int, image: Tensor) -> None:
    recorder = Recorder()
    counts = votes([recorder], image, batch_size=batch_size)[0]
    chunks = [
        torch.randn(CHUNK, *SHAPE, generator=KeyedRandomness(0, (11,)).generator(0, ESTIMATION, chunk))
        for chunk in range(3)
    ]
    expected = image + SIGMA * torch.cat(chunks)[:SAMPLES]
    assert recorder.inputs.shape == expected.shape
    assert torch.allclose(recorder.inputs, expected, atol=1e-6)
    assert torch.equal(recorder.inputs, noisy_inputs(image, SAMPLES))
    assert max(len(batch) for batch in recorder.seen) <= batch_size
    assert int(counts.sum()) == SAMPLES
    assert float(recorder.inputs.min()) < 0 < 1 < float(recorder.inputs.max()), "noisy inputs are not clipped"


@pytest.mark.parametrize("fewer", [1, 100, 499, 500, 501, 1000])
def test_more_samples_extend_the_noise_of_fewer(fewer: int, image: Tensor) -> None:
    assert torch.equal(noisy_inputs(image, fewer), noisy_inputs(image, SAMPLES)[:fewer])


def test_noise_hangs_on_image_stream_and_seed(image: Tensor) -> None:
    drawn = [noisy_inputs(image, 600, **key) for key in ({}, {"row": 1}, {"stream": SELECTION}, {"seed": 1})]
    samples = torch.cat(drawn).flatten(1)
    assert len(torch.unique(samples, dim=0)) == 4 * 600


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_votes_equal_a_literal_loop(batch_size: int, image: Tensor) -> None:
    # In float64 the order of a sum does not flip a vote.
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    expected = [0] * 5
    with torch.no_grad():
        for sample in noisy_inputs(image, SAMPLES):
            # The noise is float32 also for a float64 image, where adding it rounds less.
            noisy = image.double() + (sample - image).double()
            scores = linear(noisy[None])[0].tolist()
            expected[max(range(4), key=lambda label: (scores[label], -label))] += 1
    counts = votes([linear], image.double(), batch_size=batch_size)[0].tolist()
    assert sum(abs(mine - theirs) for mine, theirs in zip(counts, expected, strict=True)) <= 2
    assert counts == votes([linear], image.double())[0].tolist()
    assert sum(counts) == SAMPLES
    assert counts[-1] == 0
    assert sum(count > 0 for count in counts) > 1, "a test of nothing"


def test_votes_of_scores_read_off_the_input_equal_a_literal_loop(image: Tensor) -> None:
    # No arithmetic but the noise's own: the loop agrees vote by vote, in float32.
    expected = [0] * 4
    for sample in noisy_inputs(image, SAMPLES):
        scores = sample.flatten()[:3].tolist()
        expected[max(range(3), key=lambda label: scores[label])] += 1
    for batch_size in (7, 500, 1200):
        assert votes([Recorder()], image, batch_size=batch_size)[0].tolist() == expected


def test_another_batch_size_flips_at_most_a_few_votes_of_a_network(image: Tensor) -> None:
    ensemble = Ensemble([member(0, "conv_small"), member(1, "conv_small")])
    classifiers = [ensemble, ensemble.with_aggregation(MaxMargin())]
    base = votes(classifiers, image)
    flipped = {}
    for batch_size in (100, 500, 1200):
        others = votes(classifiers, image, batch_size=batch_size)
        flipped[batch_size] = sum(int((one - other).abs().sum()) // 2 for one, other in zip(base, others, strict=True))
    assert flipped[CHUNK] == 0
    assert max(flipped.values()) <= 3, flipped


def test_another_batch_size_flips_no_vote_of_a_network_in_float64(image: Tensor) -> None:
    members = [member(seed).double() for seed in range(2)]
    counts = [votes([Ensemble(members)], image.double(), batch_size=size)[0].tolist() for size in (7, 500, 1200)]
    assert counts == counts[:1] * len(counts)


def test_ties_are_votes_for_the_lowest_class(image: Tensor) -> None:
    tied = Recorder(lambda x: torch.tensor([0.0, 2.0, 2.0, 1.0]).expand(len(x), 4))
    assert votes([tied], image, 10)[0].tolist() == [0, 10, 0, 0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_votes_for_nobody(bad: float, image: Tensor) -> None:
    def answer(x: Tensor) -> Tensor:
        scores = x.flatten(1)[:, :3].clone()
        scores[scores[:, 0] > 1, 2] = bad  # also where another class has the largest score
        return scores

    inputs = noisy_inputs(image, SAMPLES).flatten(1)
    invalid = int((inputs[:, 0] > 1).sum())
    assert 0 < invalid < SAMPLES
    for batch_size in (100, 500):
        counts = votes([Recorder(answer)], image, batch_size=batch_size)[0]
        assert int(counts[-1]) == invalid
        assert int(counts.sum()) == SAMPLES
        valid = inputs[inputs[:, 0] <= 1][:, :3].argmax(1)
        assert counts[:-1].tolist() == torch.bincount(valid, minlength=3).tolist()


def test_classifiers_together_have_the_votes_of_each_alone(image: Tensor) -> None:
    first, second = member(0), member(1)
    ensemble = Ensemble([first, second])
    classifiers = [
        ensemble,
        ensemble.with_aggregation(MaxMargin()),
        ensemble.with_aggregation(Single(member=1)),
        second,
        Ensemble([second], WeightedAverage(of="logit")),
    ]
    together = votes(classifiers, image)
    for counts, classifier in zip(together, classifiers, strict=True):
        assert torch.equal(counts, votes([classifier], image)[0])
    assert torch.equal(together[2], together[3])


def test_shared_members_run_once_a_batch(image: Tensor) -> None:
    members = [Recorder(), Recorder()]
    ensemble = Ensemble(members)
    votes([ensemble, ensemble.with_aggregation(MaxMargin()), members[0]], image, SAMPLES)
    for recorder in members:
        assert [len(batch) for batch in recorder.seen] == [500, 500, 203]
        assert torch.equal(recorder.inputs, noisy_inputs(image, SAMPLES))


def test_image_is_not_altered(image: Tensor) -> None:
    before = image.clone()
    votes([Recorder()], image)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("shape", "told"),
    [((-1, 1), r"\[100, 1\]"), ((50, -1), r"\[50, 128\]"), ((-1,), r"\[6400\]"), ((-1, 8, 8), r"\[100, 8, 8\]")],
)
def test_scores_of_a_wrong_shape_are_refused(shape: tuple[int, ...], told: str, image: Tensor) -> None:
    # One logit would win every vote, and be certified as far as the samples reach.
    def answer(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :1] if shape == (-1, 1) else x.reshape(shape)

    message = rf"must map 100 inputs to scores \[100, classes\] of two classes or more, got {told}"
    with pytest.raises(ValueError, match=message):
        votes([Recorder(answer)], image, 100)


def test_fused_members_vote_as_they_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from certifiers.smoothing import votes as module

    shape = (1, 28, 28)
    found = [architectures.create("lenet5", input_shape=shape, classes=10, seed=seed).eval() for seed in range(3)]
    generator = torch.Generator().manual_seed(2)
    for weights in (parameter.data for own in found for parameter in own.parameters()):
        weights.normal_(0, 0.3, generator=generator)  # as they are made, one class has all the votes
    ensemble = Ensemble(found)
    classifiers = [
        *(ensemble, ensemble.with_aggregation(MaxMargin()), ensemble.with_aggregation(Single(member=2))),
        ensemble.with_aggregation(WeightedAverage(weights=(1.0, 2.0, 0.0), of="logit")),
    ]
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    together = votes(classifiers, pixels)
    built: list[object] = []
    real = module.fused
    monkeypatch.setattr(module, "fused", lambda members: built.append(real(members)))  # answers None: apart
    apart = votes(classifiers, pixels)
    assert built[0] is not None, "these members are fused"
    # Where kernels add in another order, a vote can change that is decided by the last bits of the scores.
    for one, other in zip(together, apart, strict=True):
        assert int((one - other).abs().sum()) <= 2
    assert len({tuple(own.tolist()) for own in together}) == 4
    assert all(int(own.max()) < SAMPLES for own in together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch_size", [100, 500, 1200])
def test_a_cuda_device_meets_the_same_noise(batch_size: int, image: Tensor) -> None:
    recorder = Recorder()
    counts = votes([recorder], image.cuda(), batch_size=batch_size)[0]
    assert torch.allclose(recorder.inputs.cpu(), noisy_inputs(image, SAMPLES), atol=1e-6)
    assert counts.device.type == "cpu"
    assert counts.tolist() == votes([Recorder()], image)[0].tolist()
