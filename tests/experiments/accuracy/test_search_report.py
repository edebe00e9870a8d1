"""Tables and plots over beam width, weight and boost, of rows made by hand."""

from experiments.accuracy import search_report, study_report
from experiments.accuracy.conditions import parse


def row(label, study, condition, wer, p_value=1.0, recall=None, alarms=None):
    key_words = None
    if recall is not None:
        key_words = {
            "spoken": 20,
            "recall": {"rate": recall, "low": recall - 0.1, "high": recall + 0.1},
            "p_value": p_value,
            "false_alarms": {"per_1000_words": alarms, "low": None, "high": None},
        }
    parsed = parse(condition)
    return {
        "label": label,
        "study": study,
        "condition": condition,
        "contender": "nemojax",
        "beam": parsed.beam,
        "lm_weight": parsed.lm_weight,
        "boost": parsed.boost,
        "wer": {"rate": wer, "low": wer / 2, "high": 2 * wer},
        "p_value": p_value,
        "key_words": key_words,
        "delay_ms": {"mean": 402.4},
    }


ROWS = [  # of three studies
    row("a", "beam", "lookahead=13", 0.2),
    row("a", "beam", "lookahead=13,beam=4", 0.1, 0.01),
    row("a", "boost", "lookahead=13", 0.2, recall=0.5, alarms=0.0),
    row("a", "boost", "lookahead=13,boost=2.0", 0.3, 0.02, 0.7, 4.0),
    row("a", "boost", "lookahead=13,beam=4", 0.1, recall=0.5, alarms=0.0),
    row("a", "boost", "lookahead=13,beam=4,boost=2.0", 0.1, recall=0.8, alarms=9.0),
    row("b", "lookahead", "lookahead=6", 0.1),
]


def test_conditions_that_differ_in_one_variable_are_a_line():
    assert search_report.varied(ROWS) == ["beam", "boost"]
    [beam] = search_report.lines(ROWS, "beam")  # those of another study are not compared with each other
    assert beam.name == "a" and len(beam.rows) == 2
    assert [line.name for line in search_report.lines(ROWS, "boost")] == ["a", "a, beam of 4"]
    assert search_report.varied(ROWS[-1:]) == [] == search_report.varied(ROWS[:1])


def test_the_table_has_each_measure_over_the_variable():
    lines = search_report.table(ROWS, "boost").splitlines()
    assert lines[0] == "|  |  | boost of key words: 0 | 2 |"
    assert lines[2] == "| a | WER, % | 20.0 [10.0, 40.0] | 30.0 [15.0, 60.0] † |"
    assert lines[3] == "| a | key words found, % | 50.0 [40.0, 60.0] | 70.0 [60.0, 80.0] † |"
    assert lines[4] == "| a | false alarms per 1,000 words | 0.0 | 4.0 |"
    assert lines[5].startswith("| a, beam of 4 | WER, %") and len(lines) == 8
    assert search_report.table(ROWS[:2], "beam").splitlines()[2:] == [
        "| a | WER, % | 20.0 [10.0, 40.0] | 10.0 [5.0, 20.0] † |",
        "| a | mean delay of a word, ms | 402.4 | 402.4 |",
    ]


def test_the_plot_has_a_panel_for_each_variable_and_measure(tmp_path):
    study_report.plot(ROWS, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    for shown in ("WER, %", "key words found, %", "false alarms per 1,000 words", "greedy", "a, beam of 4"):
        assert f">{shown}<" in text


def test_an_interval_beside_its_value_is_drawn(tmp_path):
    """A bootstrap interval of little confidence may not have the value in it."""
    beside = [{**one, "wer": {"rate": 0.2, "low": 0.21, "high": 0.22}} for one in ROWS[:2]]
    search_report.plot(beside, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").exists()
