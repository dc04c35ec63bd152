"""Hostile programs get an error text, and nothing else happens."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from pathlib import Path

import pytest

from lightning_sd.tasks.sandbox import Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(scope="module")
def sandbox():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "swordfish")
        found = Sandbox(seconds=0.4)
        found.call("def f(x): return x", "f", [[1]])
        yield found
        found.close()


def test_calls_give_reprs_and_errors_with_their_line(sandbox):
    source = "def f(x):\n    if x == 2:\n        return 1 // 0\n    return [x, 'a']"
    error, results = sandbox.call(source, "f", [[1], [2], [3]])
    assert error is None
    assert [r.value for r in results] == ["[1, 'a']", None, "[3, 'a']"]
    assert results[1].error.startswith("ZeroDivisionError")
    assert results[1].error.endswith("(line 3)")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(x) return", "SyntaxError"),
        ("def g(x): return x", "no function f"),
        ("raise RuntimeError('at once')", "RuntimeError: at once (line 1)"),
        ("while True: pass", "no result within 0.4 s"),
        ("import os\nos._exit(3)", "the program crashed"),
        ("\0", "null bytes"),
        ("# \ud800", "surrogates not allowed"),
    ],
)
def test_programs_that_don_t_load_say_why(sandbox, source, words):
    error, results = sandbox.call(source, "f", [[1]])
    assert words in error
    assert results == []


HOSTILE = {
    "endless": ("while True: pass", "no result within"),
    "deaf": (
        "while True:\n        try:\n            while 1: pass\n        except BaseException: pass",
        "no result within",
    ),
    "one long instruction": ("return 9 ** 9 ** 9", "no result within"),
    # Python 3.10 sleeps in `select`, which is refused.
    "asleep": (
        "import time; time.sleep(60)",
        "PermissionError" if sys.version_info < (3, 11) else "no result within",
    ),
    "fork": ("import os; return os.fork()", "PermissionError"),
    "fork bomb": (
        "import os\n    while True:\n        try: os.fork()\n        except OSError: pass",
        "no result within",
    ),
    "exec": ("import os; os.execv('/bin/sh', ['sh'])", "PermissionError"),
    "thread": ("import _thread; _thread.start_new_thread(print, ())", "can't start new thread"),
    "kill": ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
    "allocation": ("return [0] * 10**10", "MemoryError"),
    "growing": ("a = []\n    while True: a.append(bytes(10**8))", "MemoryError"),
    "recursion": ("return f(x)", "RecursionError"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "the program crashed"),
    "write": ("open('{folder}/made', 'w')", "PermissionError"),
    "read": ("return open('/etc/passwd').read()", "PermissionError"),
    "delete": ("import os; os.unlink('{folder}/kept')", "PermissionError"),
    "list": ("import os; return os.listdir('/')", "PermissionError"),
    "environment file": ("return open('/proc/self/environ').read()", "PermissionError"),
    "socket": ("import socket", "ModuleNotFoundError"),
    "exit": ("raise SystemExit(0)", "SystemExit"),
    "raw socket": (
        "import ctypes; n = ctypes.CDLL(None, use_errno=True).socket(2, 1, 0)\n"
        "    raise ValueError((n, ctypes.get_errno()))",
        "(-1, 1)",
    ),
    "unspeakable": (
        "class E(Exception):\n        def __str__(self): raise E\n    raise E",
        "E (line 4)",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_come_to_nothing(sandbox, tmp_path, name):
    (tmp_path / "kept").write_text("here")
    body, words = HOSTILE[name]
    source = f"def f(x):\n    {body.replace('{folder}', str(tmp_path))}"
    error, (result,) = sandbox.call(source, "f", [[1]])
    assert error is None
    assert result.value is None
    assert words in result.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept"]
    # The helper lives on.
    assert sandbox.call("def f(x): return x", "f", [[7]])[1][0].value == "7"


def test_the_environment_is_empty(sandbox):
    source = "import os\ndef f(x): return dict(os.environ)"
    assert sandbox.call(source, "f", [[1]])[1][0].value == "{}"
    assert os.environ["A_SECRET"] == "swordfish"


def test_output_is_bounded_and_prints_go_nowhere():
    source = "def f(x):\n    print('y' * 10**6)\n    return 'a' * 10**7"
    # So much text takes longer than the module's limit on a loaded machine.
    patient = Sandbox(seconds=20)
    _, results = patient.call(source, "f", [[1]] * 3)
    patient.close()
    assert all(len(r.value) == 300 for r in results)


@pytest.mark.parametrize("line", ["[[[[", '{"a": 1}', "[1, 2]", "[" * 100_000])
def test_a_program_that_writes_its_own_report_breaks_only_that(sandbox, line):
    source = (
        f"import os\ndef f(x):\n    for file in range(3, 9):\n"
        f"        try: os.write(file, {line + chr(10)!r}.encode())\n        except OSError: pass\n"
        "    return x"
    )
    error, results = sandbox.call(source, "f", [[1]])
    assert error is None
    assert results[0].value in (None, "1")
    assert sandbox.call("def f(x): return x", "f", [[7]])[1][0].value == "7"


def test_many_programs_share_one_interpreter(sandbox):
    pids = {sandbox._worker.pid}
    for i in range(20):
        assert sandbox.call(f"def f(x): return x + {i}", "f", [[1]])[1][0].value == str(1 + i)
        pids.add(sandbox._worker.pid)
    assert len(pids) == 1


def test_a_helper_that_was_ended_is_started_again(sandbox):
    sandbox._worker.kill()
    sandbox._worker.wait()
    assert sandbox.call("def f(x): return x", "f", [[1]])[1][0].value == "1"


def test_copies_have_a_helper_of_their_own(sandbox):
    for other in (copy.deepcopy(sandbox), pickle.loads(pickle.dumps(sandbox))):
        assert other.seconds == 0.4
        assert other.call("def f(x): return x", "f", [[1]])[1][0].value == "1"
        assert other._worker.pid != sandbox._worker.pid
        other.close()


def test_a_machine_that_can_t_confine_is_refused(monkeypatch, tmp_path):
    careless = Path(tmp_path / "worker.py")
    careless.write_text('print(\'[null, ["read it", null], "done"]\', flush=True)\ninput()')
    monkeypatch.setattr("lightning_sd.tasks.sandbox._WORKER", careless)
    with pytest.raises(RuntimeError, match="cannot confine"):
        Sandbox().call("def f(x): return x", "f", [[1]])


@pytest.mark.parametrize(("name", "value"), [("seconds", 0.0), ("megabytes", 8)])
def test_limits_too_low_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        Sandbox(**{name: value})
