"""Votes that several certifiers need of the same noisy inputs, counted once."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

#: From classifiers to the votes of each; see `count_votes`.
Count = Callable[[Sequence[nn.Module]], list[Tensor]]


@runtime_checkable
class VoteCounting(Protocol):
    """A certifier whose answers follow from counts of votes, of numbers of samples that were fixed in advance."""

    def poll(self) -> Hashable:
        """What decides the noisy inputs and how they are evaluated, but for the image and the seed.

        Certifiers of equal polls meet the same noisy inputs, so that a classifier's votes serve all of them.
        """

    def voters(self, classifier: nn.Module) -> list[nn.Module]:
        """Whose votes the certifier counts for a classifier; none where it does not apply."""


class SharedVotes:
    """Votes of some classifiers: whoever counts those of one of them counts them for all, and who asks later is told.

    Counts are small; they are kept while this object is.
    """

    def __init__(self, voters: Sequence[nn.Module]) -> None:
        self._voters = list(dict.fromkeys(voters))
        self._known: dict[Hashable, tuple[Tensor, dict[nn.Module, Tensor]]] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """In the body, `counted_once` asks here. The classifiers must not change between one use and the next."""
        before = _SHARED.set(self)
        try:
            yield
        finally:
            _SHARED.reset(before)

    def counted(
        self, classifiers: Sequence[nn.Module], image: Tensor, question: Hashable, count: Count
    ) -> list[Tensor]:
        """The votes of these classifiers; see `counted_once`."""
        if not set(classifiers) <= set(self._voters):
            return count(classifiers)
        asked, votes = self._known.get(question, (None, {}))
        # The image is no part of the question: two certifiers may round it in their own ways.
        if asked is None or asked.dtype != image.dtype or not torch.equal(asked, image):
            votes = dict(zip(self._voters, count(self._voters), strict=True))
            self._known[question] = image.clone(), votes
        return [votes[classifier].clone() for classifier in classifiers]


_SHARED: ContextVar[SharedVotes | None] = ContextVar("shared votes", default=None)


def counted_once(classifiers: Sequence[nn.Module], image: Tensor, question: Hashable, count: Count) -> list[Tensor]:
    """The votes of these classifiers, from `count`, unless `SharedVotes` in use know them.

    Args:
        classifiers: whose votes are wanted.
        image: the input without noise.
        question: all else that decides the votes: the noise with its key, the stream, the number of samples, how they
            are evaluated.
        count: counts the votes of the classifiers that it is given.
    """
    shared = _SHARED.get()
    return count(classifiers) if shared is None else shared.counted(classifiers, image, question, count)
