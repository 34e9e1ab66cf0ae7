"""What checks annotations here refuses and accepts what `jaxtyped` does, and is at work in the packages."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, TypeCheckError
from torch import Tensor

import certifiers.relaxation.intervals as of_certifiers
import ensembles.seeds as of_ensembles
from tests.checked_types import _jaxtyped, checked

WIDE, TALL, SQUARE = torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 2)


def product(a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
    return a @ b if len(b) == a.shape[1] else a


def turned(a: Float[Tensor, "rows columns"], *, times: int = 1) -> Float[Tensor, "columns rows"]:
    return a.T if times % 2 else a


def either(a: Float[Tensor, "n"] | Float[Tensor, "n n"] | None = None) -> Bool[Tensor, ""]:
    return torch.tensor(a is None)


def several(*all_of: Float[Tensor, "batch *shape"], **named: Float[Tensor, "batch *shape"]) -> int:
    return len(all_of) + len(named)


def pairs(each: list[tuple[Float[Tensor, "n m"], int]]) -> "tuple[Float[Tensor, 'n m'], ...]":
    return tuple(tensor for tensor, _ in each)


def one_by_one(a: Float[Tensor, "rows columns"]) -> Iterator[Float[Tensor, "columns"]]:
    yield from a


def nothing_said(a, b=2):  # type: ignore[no-untyped-def]
    return a, b


def no_value(a: int) -> None:
    return a  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Pair:
    low: Float[Tensor, "batch *shape"]
    high: Float[Tensor, "batch *shape"]
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Triple(Pair):
    middle: Float[Tensor, "batch *shape"] | None = None


class Heir(Pair):
    pass


class Maker:
    def __init__(self, size: int) -> None:
        self.size = size

    def apart(self, a: Float[Tensor, "n m"], b: Float[Tensor, "m n"]) -> "Maker":
        return self if self.size else None  # type: ignore[return-value]


CASES: list[tuple[Any, tuple[Any, ...], dict[str, Any], bool]] = [
    (product, (WIDE, TALL), {}, True),
    (product, (WIDE, SQUARE), {}, False),  # arguments of different sizes
    (product, (WIDE,), {"b": SQUARE}, False),
    (product, (WIDE, TALL.long()), {}, False),
    (product, (WIDE[0], TALL), {}, False),
    (product, ([[1.0]], TALL), {}, False),
    (turned, (WIDE,), {}, True),
    (turned, (WIDE,), {"times": 2}, False),  # what is returned is of other sizes than what was given
    (turned, (SQUARE,), {"times": 2}, True),
    (turned, (WIDE,), {"times": "1"}, False),
    (either, (), {}, True),
    (either, (WIDE[0],), {}, True),
    (either, (SQUARE,), {}, True),
    (either, (WIDE,), {}, False),
    (several, (WIDE, WIDE), {}, True),
    (several, (WIDE, TALL), {}, False),
    (several, (WIDE,), {"b": WIDE[:, 0]}, False),
    (pairs, ([(WIDE, 1)],), {}, True),
    (pairs, ([(WIDE, 1.0)],), {}, False),
    (one_by_one, (WIDE,), {}, True),
    (one_by_one, (WIDE[0],), {}, False),
    (nothing_said, (1,), {}, True),
    (no_value, (1,), {}, False),
    (Pair, (WIDE, WIDE), {}, True),
    (Pair, (WIDE, TALL), {}, False),
    (Pair, (WIDE, WIDE, ["a"]), {}, True),
    (Pair, (WIDE, WIDE, "a"), {}, False),
    (Triple, (WIDE, WIDE), {"middle": WIDE}, True),
    (Triple, (WIDE, WIDE), {"middle": TALL}, False),
    (Heir, (WIDE, TALL), {}, False),
    (Maker(1).apart, (WIDE, TALL), {}, True),
    (Maker(1).apart, (WIDE, WIDE), {}, False),
    (Maker(0).apart, (WIDE, TALL), {}, False),
]


def by_jaxtyped(what: Any) -> Any:
    return _jaxtyped(what, typechecker=beartype)


def under(decorator: Callable[[Any], Any], what: Any) -> Any:
    """What it makes of a function; of a method or a class, of a copy of it."""
    if isinstance(what, type):
        return decorator(type(what.__name__, what.__bases__, dict(vars(what))))
    if hasattr(what, "__self__"):
        return decorator(what.__func__).__get__(what.__self__)
    return decorator(what)


def passes(what: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    try:
        what(*arguments, **named)
    except TypeCheckError:
        return False
    return True


@pytest.mark.parametrize("decorator", [checked, by_jaxtyped])
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number][0].__name__}-{number}")
def test_both_refuse_the_same(number: int, decorator: Callable[[Any], Any]) -> None:
    what, arguments, named, right = CASES[number]
    assert passes(under(decorator, what), arguments, named) is right


def test_calls_within_calls_have_sizes_of_their_own() -> None:
    @checked
    def halved(a: Float[Tensor, "n"], depth: int) -> Float[Tensor, "n"]:
        inner = halved(a[: len(a) // 2], depth - 1) if depth else a
        return torch.cat([inner, inner]) if depth else a

    assert len(halved(torch.zeros(8), 3)) == 8
    with pytest.raises(TypeCheckError, match="n"):
        halved(torch.zeros(7), 1)
    assert len(halved(torch.zeros(4), 1)) == 4  # what failed left no sizes behind


def test_a_wrong_argument_never_reaches_the_function() -> None:
    reached = []

    @checked
    def noted(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> None:
        reached.append(a)

    with pytest.raises(TypeError, match="noted"):
        noted(torch.zeros(2), torch.zeros(3))
    assert reached == []


def test_names_and_documentation_stay() -> None:
    assert (checked(product).__name__, checked(product).__module__) == ("product", __name__)
    assert checked(product).__wrapped__.__annotations__ == product.__annotations__
    assert checked(nothing_said) is nothing_said


def test_the_packages_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        of_certifiers.unstable((WIDE, TALL))
    assert of_certifiers.unstable((WIDE, WIDE)).shape == WIDE.shape
    with pytest.raises(TypeCheckError):
        of_ensembles.derive_seed("not a number", "word")  # type: ignore[arg-type]
    # By what is tested here, and not by what it stands for.
    scoped = checked(product).__code__
    assert of_certifiers.unstable.__code__ is scoped
    assert of_ensembles.derive_seed.__code__ is scoped
