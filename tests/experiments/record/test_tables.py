from experiments.record import tables


def test_a_changed_row_changes_the_table(monkeypatch):
    before = tables.small_wer()
    changed = tables.read_rows("small")
    changed[0]["wer"]["rate"] = 0.4321
    monkeypatch.setattr(tables, "read_rows", lambda name: changed)
    after = tables.small_wer()
    assert "43.2 [" in after and after != before


def test_a_significant_difference_is_marked(monkeypatch):
    found = tables.read_rows("small")
    for row in found:
        row["p_value"] = 0.01 if row["lookahead"] == 0 else 0.5
    monkeypatch.setattr(tables, "read_rows", lambda name: found)
    lines = tables.small_wer().splitlines()[2:]
    assert all(line.endswith(" † |") and line.count("†") == 1 for line in lines)


def test_the_largest_number_of_streams_that_was_served(monkeypatch):
    def row(streams, served, differing=0):
        latencies = {f"p{p}_ms": float(p + streams) for p in (50, 95, 99)}
        return {
            "model": "m",
            "parameters": 4_400_000,
            "dtype": "int8",
            "lookahead": 1,
            "chunk_ms": 160.0,
            "streams": streams,
            "served": served,
            "differing": differing,
            **latencies,
        }

    found = [row(8, True), row(64, False, 2), row(16, True), row(32, False)]
    monkeypatch.setattr(tables, "read_rows", lambda name: found)
    assert tables.streams().splitlines()[-1] == "| 4.4M, int8 | 160 ms | 16 | 32 | 66 | 111 | 115 | 2 |"
    found[:] = [row(8, False)]
    assert tables.streams().splitlines()[-1] == "| 4.4M, int8 | 160 ms |  | 8 |  |  |  | 0 |"


def test_the_reason_for_a_skipped_loss_is_shown(monkeypatch):
    same = {"size": "medium", "pass": "forward"}
    measured = [{**same, "form": "fused", "seconds": s, "peak_bytes": 2**21} for s in (1.0, 2.0, 4.0)]
    found = [*measured, {**same, "form": "nemo_pytorch", "skipped": "more than 120 s"}]
    monkeypatch.setattr(tables, "read_rows", lambda name: found)
    assert tables.loss().splitlines()[2:] == [
        "| fused | forward | 2,000 [1,000, 4,000] | 2 |",
        "| nemo_pytorch | forward | more than 120 s |  |",
    ]


def test_starts_of_the_second_run_are_those_of_others(monkeypatch):
    def start(contender, seconds):
        same = {"kind": "start", "lookahead": 0, "cache": "", "repeat": 0}
        return {**same, "contender": contender, "loaded_s": seconds, "first_s": seconds}

    found = {
        "compare_latency": [start("nemojax int8", 1.0)],
        "compare_latency_more": [start("nemojax int8", 9.0), start("NeMo float32", 30.0)],
    }
    monkeypatch.setattr(tables, "read_rows", found.__getitem__)
    text = tables.latency_starts("compare_latency")
    assert "30.0" in text and "1.0" in text and "9.0" not in text


def test_conditions_are_shown_after_each_run(monkeypatch):
    def row(model, label, **condition):
        plain = {"snr": None, "telephone": False, "level": 0.0, "together": False, "pause": 0.5}
        wer = {"rate": len(model) / 100, "low": None, "high": None}
        return {"study": "level", "model": model, "label": label, "wer": wer, **plain, **condition}

    found = [row(model, label, condition="x") for model in ("third", "nemojax/small") for label in ("grid", "fsdd")]
    found += [
        row(model, label, condition="y", level=-30.0)
        for model in ("third", "nemojax/small")
        for label in ("grid", "fsdd")
    ]
    monkeypatch.setattr(tables, "read_rows", lambda name: found)
    assert tables.conditions("level").splitlines()[2:] == [
        "| as recorded | third | 5.0 | 5.0 |",
        "| as recorded | fifth | 13.0 | 13.0 |",
        "| -30 dB | third | 5.0 | 5.0 |",
        "| -30 dB | fifth | 13.0 | 13.0 |",
    ]
    assert tables.conditions("pause").count("\n") == 1
