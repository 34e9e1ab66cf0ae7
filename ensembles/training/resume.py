"""The state of an unfinished training, as bytes that hold tensors and plain values only."""

import copy
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ensembles.ensemble import Ensemble
from ensembles.training.report import EpochReport


class ResumeError(ValueError):
    """A stored state does not belong to this training."""


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after an epoch.

    Order and noise of an epoch are drawn from generators keyed by the epoch, so weights, optimizer and reports
    are all there is: a resumed training ends with the weights of an undisturbed one.
    """

    weights: dict[str, Any]
    optimizer: dict[str, Any]
    reports: tuple[EpochReport, ...]

    @classmethod
    def of(
        cls, ensemble: Ensemble, optimizer: torch.optim.Optimizer, reports: Sequence[EpochReport]
    ) -> "TrainingState":
        """The state after the last of these reports; a copy, which further training leaves as it is."""
        return cls(copy.deepcopy(ensemble.state_dict()), copy.deepcopy(optimizer.state_dict()), tuple(reports))

    def to_bytes(self) -> bytes:
        """A file's content; `from_bytes` reads it without running any code."""
        buffer = io.BytesIO()
        document = {
            "weights": self.weights,
            "optimizer": self.optimizer,
            "reports": [asdict(report) for report in self.reports],
        }
        torch.save(document, buffer)
        content = buffer.getvalue()
        # A flipped bit of a weight would be read without complaint.
        return hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, content: bytes) -> "TrainingState":
        """The state of `to_bytes`.

        Raises:
            ResumeError: the bytes are not such a state.
        """
        size = hashlib.sha256().digest_size
        digest, content = content[:size], content[size:]
        try:
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("its digest is that of other bytes: damaged, or written by an earlier version")
            document = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            reports = tuple(EpochReport(**report) for report in document["reports"])
            return cls(document["weights"], document["optimizer"], reports)
        except Exception as error:
            # The first line: what PyTorch adds is advice to read the file with the safety off.
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ResumeError(f"Not the state of a training ({reason}). Delete it to start anew.") from error

    def restore(self, ensemble: Ensemble, optimizer: torch.optim.Optimizer) -> list[EpochReport]:
        """Put weights and optimizer where they were; returns the reports so far.

        Raises:
            ResumeError: the state is of another ensemble or optimizer.
        """
        # Everything is compared before anything is changed: an ensemble that a foreign state was refused for is
        # still fit to be trained from the start.
        try:
            stored, own = _shapes(self.weights), _shapes(ensemble.state_dict())
            if stored != own:
                odd = sorted({name for name, _ in stored.items() ^ own.items()})
                raise ValueError(f"weights differ in {', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''}")
            groups = self.optimizer["param_groups"]
            if [_options(group) for group in groups] != [_options(group) for group in optimizer.param_groups]:
                raise ValueError("the optimizer or its settings differ")
            optimizer.load_state_dict(copy.deepcopy(self.optimizer))
            ensemble.load_state_dict(self.weights)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"The stored state is of another training ({error}). Delete it to start anew.") from error
        return list(self.reports)


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group of parameters, but for the learning rate, which the schedule gives."""
    return {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
