from collections.abc import Callable

import pytest

from bench.plan import Plan
from ensembles import architectures


def test_another_version_of_an_architecture_makes_another_job(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_of().jobs()
    assert not any("architecture_version" in job.recipe for job in before), "the first is not told: keys stay"
    monkeypatch.setattr(architectures.get("mlp"), "version", 2, raising=False)
    assert not {job.digest for job in before} & {job.digest for job in plan_of().jobs()}
