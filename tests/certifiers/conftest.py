"""Images for the tests of what all certifiers have in common."""

import pytest
import torch
from torch import Tensor


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([[[0.5, 0.7]], [[0.1, 0.3]], [[1.0, 1.0]]])
