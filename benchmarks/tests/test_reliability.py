"""The fuzz scripts run and notice a broken or quadratic reader; the soak reports growth."""

from __future__ import annotations

from benchmarks.reliability import fuzz, fuzz_prompts, soak


def test_the_script_finds_no_failure(capsys):
    assert not any(fuzz.fuzz(2000, seed=5).values())


def test_a_broken_reader_is_noticed(monkeypatch, tmp_path, capsys):
    def check(text, rng):
        assert "{" not in text

    monkeypatch.setitem(fuzz.CHECKS, "step-tag parser", check)
    monkeypatch.setattr(fuzz, "time_readers", lambda: {"slow": (30.0, 240.0)})
    assert fuzz.main(["--cases", "2000", "--out", str(tmp_path / "fuzz.md")]) == 1
    assert "NOT LINEAR: ['slow']" in capsys.readouterr().out
    assert "| step-tag parser | 500 |" in (tmp_path / "fuzz.md").read_text()


def test_the_script_finds_no_forged_turn(tmp_path):
    assert fuzz_prompts.main(["--cases", "100", "--out", str(tmp_path / "report.md")]) == 0
    assert "| gemma | 20 | 0 | 0 |" in (tmp_path / "report.md").read_text()


def test_a_forged_turn_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(fuzz_prompts.Family, "find_control", lambda self, ids: list(ids))
    assert fuzz_prompts.main(["--cases", "5"]) == 1
    assert "FAILED chatml" in capsys.readouterr().out


def test_a_soak_measures_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr(soak, "EVERY", 1)
    rows = soak.soak(2, tmp_path)
    assert [row.step for row in rows] == [1, 2]
    assert all(row.memory > 50 and row.files > 2 and row.processor > 0 for row in rows)


def test_growth_and_slowness_are_reported():
    rows = [soak.Row(100 * i, 400 + 10 * i, 9, 20 * i) for i in range(1, 5)]
    report = " ".join(soak.write_report(rows, 400).split())
    assert "From step 200 to step 400 memory goes from 420 to 440 MiB, +100.0 MiB" in report
    assert "The first half takes 30 ms of processor time per step, the second 70 ms." in report
