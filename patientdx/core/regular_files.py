"""Whether a path holds a file, where "no" must not hide a pipe, a socket, a device, a folder or a broken link."""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection
from pathlib import Path

from patientdx.core.errors import UserError

_REMEDY = "Put the file itself there, or delete this entry."
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_regular(path: Path) -> bool:
    """Whether a regular file, or a link to one, is at `path`; False where nothing is there.

    UserError for anything else. Path.is_file() is False for it, so it would be passed over as if it were absent, and
    another file or a default be taken; and whoever opens a pipe waits without end.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if path.is_symlink():
            raise UserError(f"{path} is a link to {path.readlink()}, and nothing is there. {_REMEDY}") from None
        return False
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, where a file is expected. {_REMEDY}")
    return True


def refuse_irregular(folder: Path, endings: tuple[str, ...]) -> None:
    """UserError where an entry of a folder is a pipe, a socket, a device or a broken link, or a folder with one of
    these endings of files. Hidden entries do not count: editors and download tools lock files by links to nowhere.
    """
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and (path.suffix in endings or not path.is_dir()):
            is_regular(path)


def regular_files(root: Path, endings: Collection[str]) -> list[Path]:
    """Every file below `root` whose name ends so (lower case, as ".csv"), sorted. UserError as in `is_regular`.

    Folders with such an ending do not count: tools that write in parts name folders so.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in endings)
    return [path for path in paths if not path.is_dir() and is_regular(path)]
