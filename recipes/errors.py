"""Errors that programs turn into exit codes.

0 done, 1 a check failed or results are missing, 2 usage or config, 3 bad data, 4 diverged,
74 disk (sysexits' EX_IOERR), 75 stopped after a checkpoint (EX_TEMPFAIL: run it again).
"""

import errno

DONE, USAGE, BAD_DATA, DIVERGED, DISK = 0, 2, 3, 4, 74


class BadDataError(Exception):
    """The data cannot be used: the message says which file and line, and what to do."""


class DivergedError(Exception):
    """Training produced non-finite losses for longer than its patience."""


def of_one_cell(error: Exception) -> Exception:
    """Return an error that costs one cell of a matrix; raise what must stop all of it.

    Raises:
        Exception: a defect of ours, or a full disk.
    """
    if exit_code(error) in (None, DISK):
        raise error
    return error


def exit_code(error: BaseException) -> int | None:
    """Return the exit code for an error that a user can mend, None for a defect of ours.

    Errors of the lower floors may name their own, as an attribute ``exit_code``.
    """
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, BadDataError):
        return BAD_DATA
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return DISK
    if isinstance(error, (ValueError, LookupError, FileNotFoundError, NotADirectoryError)):
        return USAGE
    return None
