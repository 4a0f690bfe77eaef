# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.encrypt.selection import LayerRange, parse_layer_selection, select_layers
from imagers.errors import UsageError


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        (["0"], {0}),
        (["-1"], {4}),
        (["1", "-2", "1"], {1, 3}),
        (["1..3"], {1, 2, 3}),
        (["-2..-1"], {3, 4}),
        (["1..-1"], {1, 2, 3, 4}),
        (["2.."], {2, 3, 4}),
        (["..1"], {0, 1}),
        (["0..0", "4..4"], {0, 4}),
    ],
)
def test_select_layers_by_numbers_and_ranges(texts, chosen):
    assert select_layers(5, [parse_layer_selection(text) for text in texts]) == chosen


def test_select_layers_without_a_choice_takes_all_or_all_but_the_base():
    assert select_layers(3, None) == {0, 1, 2}
    assert select_layers(3, None, skip_base=2) == {2}
    assert select_layers(0, None) == frozenset()


@pytest.mark.parametrize(
    "text", ["", "..", "a", "1-2", "1..2..3", "--1", "+1", "1.", "٣", "1234567"]
)
def test_parse_layer_selection_of_other_text_raises(text):
    with pytest.raises(UsageError, match="--encrypt-layer: expected a number"):
        parse_layer_selection(text)


@pytest.mark.parametrize(
    ("count", "layers", "skip_base", "message"),
    [
        (3, [3], 0, "no layer 3: expected a number from -3 to 2"),
        (3, [-4], 0, "no layer -4"),
        (3, [LayerRange(0, 3)], 0, "no layer 3"),
        (3, [LayerRange(2, 1)], 0, r"the range 2\.\.1 holds no layer"),
        (0, [0], 0, "it has none at all"),
        (3, None, 3, "--skip-base 3 leaves nothing to encrypt: the image has 3 layers"),
        (3, None, -1, "leaves nothing"),
        (3, [0], 1, "got both"),
    ],
)
def test_select_layers_that_are_not_there_raises(count, layers, skip_base, message):
    with pytest.raises(UsageError, match=message):
        select_layers(count, layers, skip_base=skip_base)
