"""When a run ends early."""

from experiments.training.early_stopping import dev_wers, reason_to_end


def rows(*wers):
    found = [{"kind": "train", "step": 5, "loss": 1.0}]
    for index, wer in enumerate(wers):
        found += [{"kind": "dev", "step": 10 * (index + 1), "wer": value} for value in (wer - 0.1, wer + 0.1)]
    return [*found, {"kind": "dev", "step": 10 * len(wers), "wer": None}]


def test_a_run_ends_after_evaluations_without_a_lower_rate():
    assert [round(wer, 6) for wer in dev_wers(rows(0.5, 0.3)).values()] == [0.5, 0.3]
    assert reason_to_end(rows(0.5, 0.3, 0.4), 2) is None
    assert reason_to_end(rows(0.5, 0.3, 0.4, 0.3), 2) == (
        "the dev WER has not fallen in 2 evaluations since step 20, where it was 30.00%"
    )
    assert reason_to_end(rows(0.5, 0.3, 0.4, 0.2), 2) is None
    assert reason_to_end(rows(0.5, 0.6, 0.7, 0.8), 0) is None and reason_to_end([], 1) is None
