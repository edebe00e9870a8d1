from types import SimpleNamespace

from nemojax.serving import sized_batch
from nemojax.serving.sized_batch import SizedBatch


def batch():
    batch = SimpleNamespace(size=2)
    batch.resize = lambda size: setattr(batch, "size", size)
    return batch


def test_a_batch_shrinks_only_after_many_spare_steps(monkeypatch):
    monkeypatch.setattr(sized_batch, "SHRINK_AFTER", 2)
    sized = SizedBatch(batch(), (2, 5))
    assert [sized.fit(slots) for slots in (3, 2, 1, 2, 2, 1)] == [5, 5, 5, 2, 2, 2]
    assert [sized.fit(slots) for slots in (3, 2, 2, 5, 2, 2)] == [5] * 6
    assert sized.fit(2) == 2
    sized = SizedBatch(batch(), (1, 2, 5))
    assert [sized.fit(slots) for slots in (5, 2, 2, 2, 1, 1, 1)] == [5, 5, 5, 2, 2, 2, 1]  # each waits anew
    sized = SizedBatch(batch(), (1, 2, 5))
    assert [sized.fit(slots) for slots in (2, 2, 1, 1, 1)] == [2, 2, 2, 2, 1]  # steps that need it spare nothing
