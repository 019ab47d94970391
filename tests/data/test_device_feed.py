import pytest

from retinanet.data.device_feed import OneAhead


def numbers(taken):
    for number in range(3):
        taken.append(number)
        yield number


@pytest.mark.parametrize("num_fetches", [0, 1, 2])
def test_all_come_once_in_order_however_often_one_is_fetched(num_fetches):
    ahead, found = OneAhead(numbers([])), []
    for number in ahead:
        found.append(number)
        for _ in range(num_fetches):
            ahead.fetch()
    assert found == [0, 1, 2]
    assert list(ahead) == []


def test_only_one_is_taken_before_it_is_asked_for():
    taken = []
    ahead = OneAhead(numbers(taken))
    assert taken == []
    next(ahead)
    assert taken == [0]
    ahead.fetch()
    ahead.fetch()
    assert taken == [0, 1]
    assert next(ahead) == 1
