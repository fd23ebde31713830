"""How a step is divided over parts and ranks."""

import pytest

from bdgf_fast.network import samples


def taken(count, accumulate, rank, world, monkeypatch):
    monkeypatch.setattr(samples, "ranks", lambda: (rank, world))
    return [list(range(count))[part] if some else [] for part, some in samples.shares(count, accumulate)]


@pytest.mark.parametrize(("count", "accumulate", "world"), [(48, 4, 2), (48, 1, 3), (50, 2, 4), (17, 3, 2), (8, 4, 2), (6, 4, 2)])
def test_ranks_work_together_on_the_parts_of_one_process(count, accumulate, world, monkeypatch):
    """A loss that compares the samples of a part is then the same on any number of ranks."""
    alone = taken(count, accumulate, 0, 1, monkeypatch)
    together = [taken(count, accumulate, rank, world, monkeypatch) for rank in range(world)]
    assert [sorted(sum(parts, [])) for parts in zip(*together, strict=True)] == [sorted(part) for part in alone]


@pytest.mark.parametrize(("count", "accumulate", "world"), [(1, 1, 2), (1, 4, 3), (5, 4, 2), (7, 2, 5)])
def test_few_samples_are_taken_once_by_ranks_with_equally_many_parts(count, accumulate, world, monkeypatch):
    together = [taken(count, accumulate, rank, world, monkeypatch) for rank in range(world)]
    assert len({len(parts) for parts in together}) == 1
    assert sorted(i for parts in together for part in parts for i in part) == list(range(count))
