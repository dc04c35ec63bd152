"""The fuzz scripts run and notice a broken or quadratic reader; the soak reports growth."""

from __future__ import annotations

from benchmarks.reliability import fuzz, fuzz_files, fuzz_prompts, soak
from benchmarks.reliability.fuzzing import Rates, Subject, Tally


def test_the_script_finds_no_failure():
    tallies = fuzz.fuzz(fuzz.SUBJECTS, 2000, seed=5)
    assert list(tallies.values()) == [Tally(500)] * 4


def test_no_file_breaks_a_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_files, "find_slowest", lambda *_: {"config": Rates(30.0, 31.0)})
    assert fuzz_files.main(["--cases", "2000", "--out", str(tmp_path / "report.md")]) == 0
    assert "| files of a cache's export | 2 |" in (tmp_path / "report.md").read_text()


def test_fuzzing_stops_after_its_time():
    assert fuzz.fuzz(fuzz.SUBJECTS, 2000, seed=5, minutes=-1)["step-tag parser"] == Tally()


def test_a_broken_reader_is_noticed(monkeypatch, tmp_path, capsys):
    def check(text):
        assert "{" not in text
        return True

    broken = Subject(fuzz.write_text, check)
    monkeypatch.setitem(fuzz.SUBJECTS, "step-tag parser", broken)
    monkeypatch.setattr(fuzz, "find_slowest", lambda *_: {"slow": Rates(30.0, 240.0)})
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
