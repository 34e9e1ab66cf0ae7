"""A classifier as a small graph of known layers: what bounds are computed of."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Add(nn.Module):
    """The sum of two values: what joins the branches of a residual block."""

    def forward(self, left: Float[Tensor, "batch *shape"], right: Float[Tensor, "batch *shape"]) -> Tensor:
        """`left + right`."""
        return left + right


class Shift(nn.Module):
    """`x + offset` for a constant offset of the shape of one x."""

    def __init__(self, offset: Float[Tensor, "*shape"]) -> None:
        super().__init__()
        self.offset = nn.Parameter(offset[None].detach().clone(), requires_grad=False)

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """The shifted value."""
        return x + self.offset


class Network(nn.Module):
    """Layers in an order in which each comes after what it reads: value 0 is the input, value k + 1 that of layer k.

    Layers are `nn.Linear`, `nn.Conv2d`, `nn.ReLU`, `nn.MaxPool2d`, `nn.AvgPool2d`, `nn.Flatten`, `Shift` and `Add`,
    and no others: each method says which of them it knows. The last value is the output.

    Attributes:
        layers: the layers.
        sources: for each layer the numbers of the values it reads, one, or two of an `Add`.
        names: for each layer where it comes from in the classifier, for messages.
        shapes: for each value the shape of one sample.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        sources: Sequence[tuple[int, ...]],
        names: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = tuple(sources)
        self.names = tuple(names)
        self.shapes = tuple(shapes)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def values(self, x: Float[Tensor, "batch *shape"]) -> list[Tensor]:
        """All values at x: the input, and what each layer makes of it."""
        found = [x]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            found.append(layer(*(found[source] for source in sources)))
        return found

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch outputs"]:
        """The output."""
        return self.values(x)[-1]

    def consumers(self) -> list[list[int]]:
        """For each value the layers that read it."""
        found: list[list[int]] = [[] for _ in self.shapes]
        for layer, sources in enumerate(self.sources):
            for source in sources:
                found[source].append(layer)
        return found
