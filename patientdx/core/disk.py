"""What a user can mend of an error of the operating system: a disk that is full, read-only, without permission."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from patientdx.core.errors import UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
                     errno.ENAMETOOLONG, errno.EIO, errno.ELOOP})  # fmt: skip
# A file system may have no such operation: what it is for is then not to be had there, and nothing else is wrong.
WITHOUT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
WITHOUT_LOCKS = WITHOUT_SYNC | {errno.ENOLCK}


def disk_error(error: OSError, path: Path | None = None, remedy: str | None = None) -> UserError | None:
    """A UserError with the path and its cause by name; None for an error that no other folder and no room would mend.

    path: what was read or written, unless the error names it. remedy: what the user can do.
    """
    where = path if path is not None else error.filename
    if error.errno in FULL:
        remedy = remedy or "Free some space, or set output= and cache= to folders on a larger disk."
        return UserError(f"{where or 'A file'} cannot be written: {os.strerror(error.errno)}. {remedy}")
    if error.errno in _CLOSED:
        remedy = remedy or "Give another file or folder, or the permission for it."
        return UserError(f"{where or 'A file'} cannot be used: {os.strerror(error.errno)}. {remedy}")
    return None
