"""The fuzz script runs, and notices a reader that breaks a property or is quadratic."""

from __future__ import annotations

from benchmarks.reliability import fuzz


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
