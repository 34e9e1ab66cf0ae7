import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ensembles.registry import Registry, RegistryError, UnknownNameError, did_you_mean

GROUP = "certbench.test_things"


@pytest.fixture
def things() -> Registry[type]:
    registry: Registry[type] = Registry("thing", GROUP)

    @registry.register("crown")
    class Crown:
        pass

    registry.register("closed-form")(type("ClosedForm", (), {"__module__": "certifiers.exact"}))
    return registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a distribution with entry points on sys.path, as pip leaves it there."""

    def install(name: str, version: str, entry_points: str, source: str = "", *, on_path: bool = True) -> Path:
        folder = tmp_path / f"{name}-{version}"
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}\n")
        (folder / f"{name}.py").write_text(source)
        if on_path:
            monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return folder

    return install


def test_register_returns_the_object_itself_and_get_finds_it() -> None:
    registry: Registry[object] = Registry("thing")

    def function() -> None: ...

    class Class: ...

    before = dict(vars(Class))
    assert registry.register("function")(function) is function
    assert registry.register("class")(Class) is Class
    assert dict(vars(Class)) == before
    assert registry.get("function") is function
    assert registry.names() == ["class", "function"]


@pytest.mark.parametrize("written", ["closed-form", "Closed_Form", "CLOSED-FORM"])
def test_case_is_ignored_and_underscores_equal_hyphens(things: Registry[type], written: str) -> None:
    assert things.get(written).__name__ == "ClosedForm"
    assert things.resolve(written) == "closed-form"


def test_taken_name_is_refused(things: Registry[type]) -> None:
    with pytest.raises(RegistryError, match=r"The thing name 'closed-form' is taken by certifiers\.exact\.Closed"):
        things.register("Closed_form")(int)
    assert things.get("closed-form").__name__ == "ClosedForm"


def test_unknown_name_says_the_nearest_and_the_list(things: Registry[type]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        things.get("corwn")
    assert str(caught.value) == "Unknown thing 'corwn'. Did you mean 'crown'? Available: closed-form, crown."
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownNameError) as caught:
        things.origin("zzz")
    assert str(caught.value) == "Unknown thing 'zzz'. Available: closed-form, crown."
    with pytest.raises(UnknownNameError, match=r"^Unknown thing 'x'\. Available: none\.$"):
        Registry[int]("thing").get("x")


def test_did_you_mean_answers_in_the_spelling_allowed() -> None:
    assert did_you_mean("SIGMAA", ["alpha", "Sigma"]) == "Did you mean 'Sigma'? "
    assert did_you_mean("batch-size", ["batch_size"]) == "Did you mean 'batch_size'? "
    assert did_you_mean("qqq", ["alpha", "Sigma"]) == ""
    assert did_you_mean("alpha", []) == ""


def test_origin_of_what_is_registered_is_the_code_it_came_from(things: Registry[type]) -> None:
    assert things.origin("Closed_Form") == "certbench"
    assert things.origin("crown") == __name__


def test_plug_in_is_listed_without_import_and_loaded_by_get(
    things: Registry[type], install: Callable[..., Path]
) -> None:
    assert things.names() == ["closed-form", "crown"]
    install("certify_more", "1.2", "My_Thing = certify_more:MyThing", "class MyThing: pass")
    assert things.names() == ["closed-form", "crown", "my-thing"]
    assert things.origin("my-thing") == "certify_more 1.2"
    assert "certify_more" not in sys.modules
    assert things.get("my-thing").__name__ == "MyThing"
    assert things.get("my-thing") is sys.modules["certify_more"].MyThing


def test_plug_in_that_also_registers_itself_is_one_thing(
    things: Registry[type], install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensembles.registry.test_things", things, raising=False)
    source = "from ensembles.registry import test_things\n@test_things.register('both')\nclass Both: pass"
    install("certify_both", "3", "both = certify_both:Both", source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = things.get("both")
        assert things.get("both") is first
        assert things.origin("both") == "certify_both 3"
        assert things.names() == ["both", "closed-form", "crown"]


def test_refresh_sees_what_was_installed_into_a_folder_already_on_the_path(
    things: Registry[type], install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install("first_one", "1", "first = first_one:First", on_path=False))
    assert "first" in things.names()
    entry_points = next(Path(sys.path[0]).glob("*.dist-info/entry_points.txt"))
    entry_points.write_text(f"[{GROUP}]\nsecond = first_one:Second\n")
    things.refresh()
    assert things.names() == ["closed-form", "crown", "second"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("Other = 1", "AttributeError: module 'broken_one' has no attribute 'Thing'"),
        ("def", "SyntaxError: "),
    ],
)
def test_broken_plug_in_is_listed_and_says_what_to_do(
    things: Registry[type], install: Callable[..., Path], source: str, error: str
) -> None:
    install("broken_one", "0.3", "broken = broken_one:Thing", source)
    assert things.names() == ["broken", "closed-form", "crown"]
    assert things.origin("broken") == "broken_one 0.3"
    assert things.get("crown").__name__ == "Crown"
    with pytest.raises(RegistryError) as caught:
        things.get("broken")
    assert str(caught.value).startswith(
        "The thing 'broken' is a plug-in of broken_one 0.3 (broken = broken_one:Thing), which failed to load: " + error
    )
    assert "pip uninstall broken_one" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_malformed_entry_points_break_nothing_else(things: Registry[type], install: Callable[..., Path]) -> None:
    install("good_one", "1", "good = good_one:Good")
    install("malformed", "1", "this line has no equals sign")
    with pytest.warns(UserWarning, match=r"distribution malformed are ignored: .*Reinstall it"):
        assert things.names() == ["closed-form", "crown", "good"]


def test_plug_in_with_a_built_in_name_is_ignored_aloud(things: Registry[type], install: Callable[..., Path]) -> None:
    install("impostor", "1", "CROWN = impostor:Crown", "class Crown: pass")
    with pytest.warns(UserWarning, match=r"thing 'crown' of the plug-in impostor 1 is ignored: .*Crown has that"):
        assert things.names() == ["closed-form", "crown"]
    assert things.get("crown").__module__ == __name__


def test_built_in_registered_after_discovery_wins_as_well(things: Registry[type], install: Callable[..., Path]) -> None:
    install("early", "1", "late = early:Late", "class Late: pass")
    assert things.origin("late") == "early 1"
    things.register("late")(int)
    with pytest.warns(UserWarning, match="thing 'late' of the plug-in early 1 is ignored"):
        assert things.get("late") is int


def test_first_of_two_plug_ins_with_one_name_is_kept(things: Registry[type], install: Callable[..., Path]) -> None:
    install("one_plug", "1", "twin = one_plug:Twin")
    install("other_plug", "2", "twin = other_plug:Twin")
    with pytest.warns(UserWarning, match="plug-in one_plug 1 is ignored: other_plug 2 has that name"):
        assert things.origin("twin") == "other_plug 2"


def test_two_copies_of_one_distribution_are_no_clash(things: Registry[type], install: Callable[..., Path]) -> None:
    install("copied", "1", "copy = copied:Copy")
    install("copied", "2", "copy = copied:Copy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert things.origin("copy") == "copied 2"


def test_registry_without_group_takes_no_plug_ins(install: Callable[..., Path]) -> None:
    install("certify_more", "1.2", "my-thing = certify_more:MyThing")
    assert Registry[int]("thing").names() == []
