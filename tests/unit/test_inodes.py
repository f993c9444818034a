"""When two records are about one file."""

from __future__ import annotations

import pytest

from transferd.model.job import Inode


@pytest.mark.parametrize(
    ("device", "number", "born", "same"),
    [
        (1, 2, 3, True),
        (9, 2, 3, True),  # numbered anew at each mount
        (1, 9, 3, False),
        (1, 2, 9, False),  # the number was used again
        (1, 2, None, True),  # nobody knows
    ],
)
def test_a_file_is_the_same_by_number_and_birth(
    device: int, number: int, born: int | None, same: bool
) -> None:
    """What one of the two records lacks does not tell them apart."""
    one, other = Inode(device=1, number=2, born=3), Inode(device=device, number=number, born=born)
    assert one.same(other) is other.same(one) is same
