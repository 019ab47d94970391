import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.coco.packed_names import PackedNames

texts = st.text(st.characters(codec="utf-8"))


@given(st.lists(texts))
def test_is_the_list_that_it_packs(names):
    packed = PackedNames.of(names)
    assert len(packed) == len(names)
    assert list(packed) == names
    assert packed[1:-1] == names[1:-1]
    assert [packed[index - len(names)] for index in range(len(names))] == names
    with pytest.raises(IndexError):
        packed[len(names)]


def test_iterating_ends():
    assert list(PackedNames.of([])) == []
