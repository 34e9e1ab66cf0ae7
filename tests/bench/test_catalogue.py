import dataclasses
from importlib import metadata

import pytest

from bench import datasets
from bench.catalogue import KINDS, catalogue
from bench.spec import packaged_specs
from certifiers import registry as certifier_registry
from certifiers.smoothing import Smoothing
from ensembles import architectures


def names(kind: str) -> list[str]:
    return [item["name"] for item in catalogue([kind])[kind]]


def test_every_kind_lists_what_its_registry_has() -> None:
    found = catalogue()
    assert list(found) == list(KINDS)
    assert names("datasets") == datasets.names()
    assert names("architectures") == architectures.names()
    assert names("specs") == list(packaged_specs())
    assert {"smoothing", "closed-form", "closed-form-margins"} <= set(names("certifiers"))
    assert {"single", "weighted-average", "max-margin"} <= set(names("aggregations"))
    assert "gaussian" in names("objectives")
    for items in found.values():
        for item in items:
            assert item["summary"], item["name"]
            assert {"name", "origin", "summary", "parameters"} <= set(item)


def test_a_certifier_is_listed_with_parameters_norms_guarantee_and_version() -> None:
    (item,) = [item for item in catalogue(["certifiers"])["certifiers"] if item["name"] == "smoothing"]
    assert item["origin"] == "certbench"
    assert item["norms"] == ["l1", "l2", "linf"]
    assert (item["guarantee"], item["version"]) == ("probabilistic", Smoothing.version)
    listed = {parameter["name"]: parameter for parameter in item["parameters"]}
    assert list(listed) == [field.name for field in dataclasses.fields(Smoothing)]
    assert listed["sigma"]["default"] == "required"
    assert (listed["n0"]["type"], listed["n0"]["default"]) == ("int", "100")
    assert [name for name, row in listed.items() if row["role"] == "execution"] == ["batch_size", "compile_members"]


def test_what_the_program_gives_by_itself_is_not_a_parameter() -> None:
    (mlp,) = [item for item in catalogue(["architectures"])["architectures"] if item["name"] == "mlp"]
    assert [parameter["name"] for parameter in mlp["parameters"]] == ["hidden"]
    assert all(not item["parameters"] for item in catalogue(["datasets"])["datasets"])


def test_a_plug_in_that_cannot_be_loaded_is_listed_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = metadata.EntryPoint("broken", "gone:Certifier", "certbench.certifiers")
    found = certifier_registry._registry._found()
    monkeypatch.setattr(certifier_registry._registry, "_plug_ins", {**found, "broken": broken})
    items = {item["name"]: item for item in catalogue(["certifiers"])["certifiers"]}
    assert items["broken"]["summary"].startswith("cannot be used: The certifier 'broken' is a plug-in of ")
    assert "ModuleNotFoundError: No module named 'gone'" in items["broken"]["summary"]
    assert items["broken"]["parameters"] == []
    assert items["smoothing"]["parameters"]
