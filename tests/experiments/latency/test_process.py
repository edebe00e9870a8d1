import pytest

from experiments.latency.process import ContenderError, ContenderProcess


def test_a_contender_answers_in_a_process_of_its_own(work):
    process = ContenderProcess("nemojax float32", work, threads=1)
    try:
        answer = process.ask(do="stream", recording=0, lookahead=1)
        again = process.ask(do="first", recording=0, lookahead=1)
        batch = process.ask(do="batch", recordings=[0, 0], lookahead=1, batch_size=2)
    finally:
        process.close()
    assert len(answer["steps"]) == 19 and answer["peak_bytes"] >= answer["resident_bytes"] > 1e7
    assert answer["tokens"][: len(again["tokens"])] == again["tokens"]
    assert batch["tokens"][0] == batch["tokens"][1] and batch["seconds"] > 0


def test_a_contender_that_fails_names_the_reason(tmp_path):
    with pytest.raises(ContenderError, match=r"nemojax float32: .*recordings\.npz"):
        ContenderProcess("nemojax float32", tmp_path, threads=1)
