"""Merges that are killed at given moments, each in a fork, so that the imports are paid once. JSON in, JSON out.

A moment is a number of calls that change a disk: the call of that number is not made any more, or half of it.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from merged_folders import recipe_of, sources

from patientdx.checkpoints import journal
from patientdx.checkpoints.save import save
from patientdx.core.errors import UserError

CALLS = ("pwrite", "write", "fsync", "fdatasync", "rename", "replace", "posix_fallocate", "truncate", "mkdir", "unlink")


def kill_at(moment: int) -> None:
    """Count the calls of this process, and kill it in the middle of one."""
    count = 0

    def counted(name):
        real = getattr(os, name)

        def call(first, *rest, **options):
            nonlocal count
            count += 1
            if count == moment:
                if name in ("pwrite", "write"):
                    data = memoryview(rest[0])
                    real(first, data[: len(data) // 2], *rest[1:])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(first, *rest, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(name))


def forked(step) -> str:
    """How a step ended in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            step()
            said = "done"
        except UserError as fault:
            said = f"refused: {fault}"
        except BaseException as error:
            said = repr(error)
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    said = b""
    while part := os.read(ours, 1 << 16):
        said += part
    os.close(ours)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said.decode() if code == 0 else f"ended with {code}"


def main() -> None:
    asked = json.load(sys.stdin)
    base, pivot, place = (Path(asked[name]) for name in ("base", "pivot", "place"))
    journal.SYNC_BYTES = asked["sync_bytes"]

    def merge(target):
        given = {"cache": target.parent / "cache", "sources": sources(instruct=base, numeric=pivot)}
        save(recipe_of(base, pivot), target, shard_bytes=30_000, threads=2, **given)

    def killed(target, moment):
        kill_at(moment)
        merge(target)

    def cramped(target):
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_bytes"], resource.RLIM_INFINITY))
        merge(target)

    ended = []
    for number, moments in enumerate(asked["moments"]):
        target = place / str(number) / "merged"
        target.parent.mkdir()
        said = [forked(lambda moment=moment, target=target: killed(target, moment)) for moment in moments]
        kept = sum(file.read_bytes().count(b"\n") for file in target.parent.glob(".merged.*/journal-*"))
        ended.append([said, kept, forked(lambda target=target: merge(target))])
    full = place / "full" / "merged"
    full.parent.mkdir()
    ended.append([forked(lambda: cramped(full)), forked(lambda: merge(full))])
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
