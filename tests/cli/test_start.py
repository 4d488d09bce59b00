"""A process of the command: closed streams, signals at any moment, settings that are not its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest

from lcpu.cli import start

SIGNALS = [signal.SIGINT, signal.SIGTERM]
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
posix = pytest.mark.skipif(os.name != "posix", reason="a shell and signals are needed")

# Without a stream, the file that is opened next gets its number, unless something else is put there.
CLOSING = """
import os, sys
for number in {closed}:
    os.close(number)
for number, name in enumerate(("stdin", "stdout", "stderr")):
    if number in {closed}:
        setattr(sys, name, None)
from lcpu.cli import start
start.open_closed_streams()
file = os.open({path!r}, os.O_RDWR | os.O_CREAT)
os.write(2, b"to stderr")
if sys.stdin is not None or 0 in {closed}:
    assert os.read(0, 1) == b""
os._exit(0 if file > 2 and sys.stderr is not None else 1)
"""


@posix
@pytest.mark.parametrize("closed", [each for size in (1, 2, 3) for each in combinations(range(3), size)], ids=str)
def test_a_file_never_gets_the_number_of_a_closed_stream(closed, tmp_path):
    path = tmp_path / "file"
    script = CLOSING.format(closed=closed, path=str(path))
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b""


@posix
@pytest.mark.parametrize(
    ("closing", "code", "out", "err"),
    [
        ("2>&-", 0, " there was a café.\n", ""),
        ("<&-", 0, " there was a café.\n", "load"),
        ("<&- 2>&-", 0, " there was a café.\n", ""),
        (">&-", 1, "", "lcpu: error: stdout is closed; send it to a file or to /dev/null\n"),
        (">&- 2>&-", 1, "", ""),
        ("<&- >&- 2>&-", 1, "", ""),
    ],
)
def test_closed_streams(closing, code, out, err):
    """What is meant for stderr goes there or nowhere."""
    command = f'exec "$0" "$@" {closing}'
    script = f"import sys; sys.argv[1:] = ['run', '-p', 'a']; sys.path.insert(0, {str(FAKE_ENGINE.parent)!r})\n" \
             "import fake_engine; sys.modules.update(fake_engine.modules())\n" \
             "from lcpu.cli.start import main; main()"
    done = subprocess.run(["sh", "-c", command, sys.executable, "-c", script], capture_output=True,
                          encoding="utf-8", stdin=subprocess.DEVNULL)
    assert done.returncode == code
    assert done.stdout == out
    assert done.stderr.startswith(err)
    assert bool(done.stderr) == bool(err)


def test_settings_of_numba_are_those_of_other_programs(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    start.set_up_libraries()
    assert "NUMBA_CPU_NAME" not in os.environ
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def started(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "lcpu", "run", "-p", "a", "-n", "5"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "LCPU_CACHE_DIR": str(cache)})


@posix
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("delay", [0.1, 0.8, 1.5])
def test_a_signal_while_kernels_compile(tmp_path, number, delay):
    with started(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("compiling kernels")
        time.sleep(delay)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", "")
    assert time.monotonic() - sent < 10  # not when all is compiled; this machine may be busy
    assert not list(tmp_path.rglob("*.part"))


@posix
def test_a_second_interrupt(tmp_path):
    with started(tmp_path) as process:
        assert process.stderr is not None
        process.stderr.readline()
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


SLOW_IMPORT = """
import os, signal, sys
class Slow:
    def find_spec(self, name, *_):
        if name == "lcpu.cli.main":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Slow())
from lcpu.cli.start import main
main()
"""


@posix
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_modules_are_imported(number):
    done = subprocess.run([sys.executable, "-c", SLOW_IMPORT.format(number=int(number))], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


@posix
def test_an_interrupt_that_the_shell_ignores_is_ignored():
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SLOW_IMPORT.format(number=2)
    done = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lcpu ")
