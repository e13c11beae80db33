"""The table of layers, and those that tell most."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.lens.layers import in_order, layer_table, telling_layers
from likeness.lens.models import open_model
from likeness.nets.identity import Architecture, Tower
from likeness.nets.layers import conv, max_pool


def test_the_table_of_layers(vgg: Path) -> None:
    model = open_model(vgg, size=32)
    rows = {row["layer"]: row for row in layer_table(model.net, model.blank())}
    assert rows["relu2_2"] == {
        "layer": "relu2_2",
        "units": 5,
        "positions": [16, 16],
        "size": [12, 12],
        "stride": [2, 2],
        "offset": [-5, -5],
    }


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)  # an operation whose field is not known


def test_a_field_that_is_not_known_is_empty() -> None:
    rows = layer_table(nn.Sequential(nn.ReLU(), Odd()), torch.zeros(1, 2, 9))
    assert [row["size"] for row in rows] == [[1], []]


def alexnet(dims: int) -> nn.Sequential:
    """Five convolutions in three stages, as in the chapter's figure."""

    def layer(n: int, m: int) -> list[nn.Module]:
        return [conv(dims, n, m, 3, padding=1), nn.ReLU()]

    pool = [max_pool(dims, 2)]
    return nn.Sequential(*layer(1, 2), *pool, *layer(2, 2), *pool, *layer(2, 2), *layer(2, 2), *layer(2, 2))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_of_five_layers_all_five_are_shown(dims: int) -> None:
    names = telling_layers(alexnet(dims), torch.zeros(1, 1, *[8] * dims))
    assert names == ("1", "4", "7", "9", "11")


def test_the_stages_of_a_tower_and_no_block_twice() -> None:
    tower = Tower(Architecture(size=32, widths=(4, 4, 4), blocks=(1, 3, 1))).eval()
    names = telling_layers(tower, torch.zeros(1, 3, 32, 32))
    assert {"stages.0", "stages.1", "stages.2"} <= set(names) and len(names) == 5 and "stages" not in names
    assert all(name.count(".") < 3 for name in names)  # blocks, not what is inside them


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_they_follow_each_other_and_end_the_net(pools: list[bool]) -> None:
    parts = [part for pool in pools for part in (nn.ReLU(), *([nn.AvgPool1d(2)] if pool else []))]
    names = telling_layers(nn.Sequential(*parts), torch.zeros(1, 1, 2**13))
    order = [int(name) for name in names]
    relus = [i for i, part in enumerate(parts) if isinstance(part, nn.ReLU)]
    assert order == sorted(set(order) & set(relus)) and len(order) == min(5, len(relus))
    assert order[-1] == relus[-1]


def test_a_net_without_maps_is_refused() -> None:
    with pytest.raises(InvalidOption, match="positions"):
        telling_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 4))


def test_layers_whose_field_is_not_known_do_not_tell() -> None:
    x = torch.zeros(1, 2, 9)
    assert telling_layers(nn.Sequential(nn.ReLU(), Odd(), nn.ReLU()), x) == ("0",)
    with pytest.raises(InvalidOption, match="receptive field"):
        telling_layers(nn.Sequential(Odd(), nn.ReLU()), x)


def test_of_nested_blocks_the_outer_ones_tell() -> None:
    """Nine blocks, each with a function before its end: the last, then what halves what lies between."""
    block = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Conv1d(1, 1, 1)))
    blocks = nn.Sequential(*(copy.deepcopy(block) for _ in range(9)))
    assert telling_layers(blocks, torch.zeros(1, 1, 8)) == ("1", "2", "4", "6", "8")


def test_in_the_order_of_computation_with_their_shapes() -> None:
    net, x = alexnet(1), torch.zeros(1, 1, 8)
    assert in_order(net, x, ["11", "1", "4", "1"]) == {"1": (1, 2, 8), "4": (1, 2, 4), "11": (1, 2, 2)}
    assert list(in_order(net, x, ["11", "1", "4"])) == ["1", "4", "11"]
    for layers, error, message in (
        ([], InvalidOption, "at least one"),
        (["12x"], UnknownName, "did you mean"),
        (["1#1"], UnknownName, "another name"),
    ):
        with pytest.raises(error, match=message):
            in_order(net, x, layers)
