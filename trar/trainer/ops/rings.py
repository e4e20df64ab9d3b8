"""Nested attention windows on a square grid, taken apart into rings, and their joint softmax.

b = batch x heads, n = cells (side * side, raster order), o = orders to choose from.
Order 0 sees the whole grid, order k the (2k+1) x (2k+1) cells around a query, cut at the border
(TRAR-VQA openvqa/models/TRAR/trar.py:57-91). The windows are nested, so each pair (query, key)
lies in one ring, the smallest window that holds the key, and every window is a union of rings:
one pass over a map of scores serves all orders.

Values per row and order (or ring) are kept as (n, b, o): all sums and spreads are then n matrix
products with the constant membership, each done in a single pass over the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trar.errors import ConfigError


def check_orders(grid_side: int, orders: Sequence[int]) -> None:
    """Refuse orders that no grid of ``grid_side`` can tell apart.

    Raises:
        ConfigError: no order, a negative or repeated one, or one that reaches past the grid.
    """
    named = f"orders {list(orders)}"
    if not orders or min(orders) < 0:
        raise ConfigError(
            f"{named} must be one or more of 0 (the whole grid), 1, 2, ... (windows of 2k+1 cells)"
        )
    if len(set(orders)) < len(orders):
        raise ConfigError(f"{named} has duplicates; name each order once")
    if max(orders) >= max(grid_side, 1):
        raise ConfigError(
            f"{named} reach past a grid of {grid_side}x{grid_side} cells; use orders below "
            f"{grid_side}, and 0 for the whole grid"
        )


class Rings(nn.Module):
    """The rings of ``orders`` on a grid, as constant tensors that move with the model.

    ``window`` (o, n, n): True where the window of ``orders[o]`` around the query (row) holds the
    key (column). ``member`` (n, n, o): 1 where it is the smallest that does; keys outside every
    window belong to no ring. ``nested`` (o, o): 1 where the ring of the row's order lies in the
    window of the column's. ``ascending`` (o,): the orders' places, smallest window first;
    ``level`` (n, n) uint8: the place in that list of a pair's smallest window, o where none is.
    """

    window: Tensor
    member: Tensor
    nested: Tensor
    ascending: Tensor
    level: Tensor

    def __init__(self, grid_side: int, orders: Sequence[int]) -> None:
        super().__init__()
        check_orders(grid_side, orders)
        cell = torch.arange(grid_side * grid_side)
        y, x = cell // grid_side, cell % grid_side
        distance = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
        reach = torch.tensor([grid_side if order == 0 else order for order in orders])
        fits = reach >= distance[..., None]  # (n, n, o)
        smallest = torch.where(fits, reach, grid_side + 1).amin(-1, keepdim=True)
        constants = {
            "window": fits.permute(2, 0, 1).contiguous(),
            "member": (fits & (reach == smallest)).float(),
            "nested": (reach[:, None] <= reach).float(),
            "ascending": reach.argsort(),
            "level": (~fits).sum(-1).to(torch.uint8),  # as many windows are too small
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def sums(self, values: Tensor) -> Tensor:
        """The sum of a map ``values`` (b, n, n) over each ring, (n, b, o)."""
        # this way round the product is a single pass; the other way it is several times slower
        return torch.bmm(self.member.transpose(1, 2), values.permute(1, 2, 0)).transpose(1, 2)

    def spread(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """The map (b, n, n) that has ``values`` (n, b, o) on their rings and 0 elsewhere, in the
        memory of ``into`` where that is given: a contiguous map, which is overwritten."""
        size, count, _ = values.shape
        out = None if into is None else into.view(size, count, size)
        return torch.bmm(values, self.member.transpose(1, 2), out=out).transpose(0, 1)

    def empty(self, cells: Tensor) -> Tensor:
        """Which windows hold no real cell of ``cells`` (b, n): (n, b, o) bool."""
        real = torch.tensordot(self.member, cells.to(self.member.dtype), dims=([1], [1]))
        nothing: Tensor = (real.transpose(1, 2) @ self.nested) == 0
        return nothing


@dataclass(frozen=True)
class RingSoftmax:
    """The softmaxes of all windows at once: P_o(i, j) = terms(i, j) shift(r, o) inverse(o), where
    r is the ring of (i, j).

    ``terms`` (b, n, n); ``shift`` (o, o) or (n, b, o, o), rows = rings, 0 outside the window;
    ``inverse`` (n, b, o), 0 for an empty window.
    """

    terms: Tensor
    shift: Tensor
    inverse: Tensor

    @property
    def joint(self) -> bool:
        """Whether the windows are shares of one softmax: P_o = terms inverse(o) in its window."""
        return self.shift.dim() == 2

    def part(self, maps: slice) -> RingSoftmax:
        """The same of some of the b maps."""
        shift = self.shift if self.joint else self.shift[:, maps]
        return RingSoftmax(self.terms[maps], shift, self.inverse[:, maps])

    def to_orders(self, ring_values: Tensor) -> Tensor:
        """sum_r x_r shift(r, o) inverse(o) of ``ring_values`` x (n, b, o)."""
        return (ring_values.unsqueeze(-2) @ self.shift).squeeze(-2) * self.inverse

    def to_rings(self, order_values: Tensor) -> Tensor:
        """sum_o x_o shift(r, o) inverse(o) of ``order_values`` x (n, b, o)."""
        return ((order_values * self.inverse).unsqueeze(-2) @ self.shift.mT).squeeze(-2)


def ring_softmax(scores: Tensor, rings: Rings, empty: Tensor | None) -> RingSoftmax:
    """All windows' softmaxes of ``scores`` (b, n, n), which is overwritten.

    Excluded keys have the lowest score of the type; ``empty`` (n, b, o) bool as ``Rings.empty``.
    One softmax over all keys serves as long as every window keeps a share of it that is well
    above the smallest number; where a window far below the row's maximum does not, each ring is
    taken relative to the maximum of its own window, which is exact at any distance.
    """
    joint = _joint_softmax(scores, rings, empty)
    if joint is not None:
        return joint
    top = _window_maxima(scores, rings)
    shift = (top.unsqueeze(-1) - top.unsqueeze(-2)).masked_fill_(rings.nested == 0, -torch.inf)
    shift = shift.exp_()
    terms = scores.sub_(rings.spread(top)).masked_fill_(rings.member.sum(-1) == 0, -torch.inf)
    terms = terms.exp_()
    total = (rings.sums(terms).unsqueeze(-2) @ shift).squeeze(-2)
    return RingSoftmax(terms, shift, _inverse(total, empty))


def _joint_softmax(scores: Tensor, rings: Rings, empty: Tensor | None) -> RingSoftmax | None:
    """The windows as shares of one softmax, or None where that would not be exact."""
    if scores.device.type != "cpu":  # looking at a result would stall the device's queue
        return None
    terms = scores.softmax(-1)
    total = rings.sums(terms) @ rings.nested
    enough = total >= torch.finfo(total.dtype).tiny ** 0.5
    if not bool((enough if empty is None else enough | empty).all()):
        return None
    return RingSoftmax(terms, rings.nested, _inverse(total, empty))


def _inverse(total: Tensor, empty: Tensor | None) -> Tensor:
    inverse = total.reciprocal()
    return inverse if empty is None else inverse.masked_fill_(empty, 0)


def _window_maxima(scores: Tensor, rings: Rings) -> Tensor:
    """The largest score in each window, (n, b, o)."""
    lowest = torch.finfo(scores.dtype).min
    maxima = [scores.masked_fill(~window, lowest).amax(-1) for window in rings.window]
    return torch.stack(maxima, dim=-1).transpose(0, 1)
