"""Locks: who holds one is said, a wait can end, and what a file system lacks is no error."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from patientdx.core import atomic_io, locks
from patientdx.core.checksums import cached_checksum
from patientdx.core.disk import disk_error
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock

HOLDER = """
import sys, time
from pathlib import Path
from patientdx.core.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`/work."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "work")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_wait_says_who_holds_the_lock_and_ends_when_it_may(tmp_path, holder, monkeypatch, caplog):
    os.kill(holder.pid, signal.SIGSTOP)
    monkeypatch.setenv(locks.LONGEST_WAIT, "0.4")
    monkeypatch.setattr(locks, "_LOG_AFTER", 0.1)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as error, exclusive_lock(tmp_path / "work"):
        pytest.fail("two processes have the lock")
    words = f"process {holder.pid} on {os.uname().nodename} holds {tmp_path}/.work.lock since {time.strftime('%Y-')}"
    assert str(error.value).startswith(words)
    assert "is stopped (kill -CONT" in str(error.value)
    assert str(error.value).endswith("PATIENTDX_LOCK_SECONDS=0.4 is over.")
    assert caplog.records[0].message.startswith(f"waiting: {words}")


def test_without_a_wait_the_block_runs(tmp_path, holder):
    with exclusive_lock(tmp_path / "work", wait=False):
        pass
    assert holder.poll() is None


def test_a_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with exclusive_lock(tmp_path / "work"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_longest_wait_is_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv(locks.LONGEST_WAIT, "soon")
    with pytest.raises(UserError, match="PATIENTDX_LOCK_SECONDS=soon"), exclusive_lock(tmp_path / "work"):
        pass


@pytest.fixture
def held(tmp_path):
    """The open lock file of `tmp_path`/work, locked, without a word of who holds it."""
    handle = os.open(tmp_path / ".work.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def test_a_holder_that_has_not_said_who_it_is(tmp_path, held, monkeypatch):
    monkeypatch.setenv(locks.LONGEST_WAIT, "0.1")
    with pytest.raises(UserError, match=f"^another process holds {tmp_path}/.work.lock, and"):
        locks.exclusive_lock(tmp_path / "work").__enter__()
    os.close(held)


def test_a_lock_file_that_its_last_holder_deleted_is_no_lock(tmp_path, held):
    """Who waited for it has a file that no later process can see."""

    def release():
        (tmp_path / ".work.lock").unlink()
        os.close(held)

    threading.Timer(0.2, release).start()
    with exclusive_lock(tmp_path / "work"):
        assert (tmp_path / ".work.lock").read_text().startswith(f"{os.getpid()} ")


def raising(number):
    def call(*arguments):
        raise OSError(number, os.strerror(number))

    return call


def test_a_disk_without_locks_does_without(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK))
    with exclusive_lock(tmp_path / "work"):
        (tmp_path / "work").write_text("made")
    atomic_io.write_atomically(tmp_path / "a", lambda aside: aside.write_text("a"))
    with pytest.raises(UserError, match="No locks available"), locks.locked(tmp_path / "lock", required=True):
        pass


def test_a_disk_without_fsync_does_without(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", raising(errno.EINVAL))
    atomic_io.write_atomically(tmp_path / "a", lambda aside: aside.write_text("a"))
    monkeypatch.setattr(os, "fsync", raising(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        atomic_io.write_atomically(tmp_path / "b", lambda aside: aside.write_text("b"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom patientdx.core.atomic_io import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda aside: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "roc.png")]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1

    def write(aside):
        atomic_io.write_atomically(tmp_path / "roc.png", lambda other: other.write_text("meanwhile"))
        aside.write_text("last")  # the file of a process that lives is not taken

    atomic_io.write_atomically(tmp_path / "roc.png", write)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("roc.png", "last")]


def test_errors_of_a_disk_are_named():
    error = disk_error(OSError(errno.EROFS, "Read-only file system", "/cache/a"))
    assert str(error).startswith("/cache/a cannot be used: Read-only file system.")


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"key": 1}', "[" * 100_000])
def test_a_damaged_checksum_is_computed_again(tmp_path, content):
    (tmp_path / "file").write_text("x")
    assert cached_checksum("file", [tmp_path / "file"], tmp_path, lambda: "first") == "first"
    (stored,) = (tmp_path / "hashes").iterdir()
    stored.write_text(content)
    assert cached_checksum("file", [tmp_path / "file"], tmp_path, lambda: "second") == "second"
