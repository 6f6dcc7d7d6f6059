"""Errors that programs turn into exit codes.

0 done, 1 a check failed or results are missing, 2 usage or config (a file that the system refuses,
too), 3 bad data, 4 diverged, 74 disk (sysexits' EX_IOERR), 75 stopped after a checkpoint
(EX_TEMPFAIL: run it again).
"""

import errno

DONE, USAGE, BAD_DATA, DIVERGED, DISK = 0, 2, 3, 4, 74

_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class BadDataError(Exception):
    """The data cannot be used: the message says which file and line, and what to do."""


class DivergedError(Exception):
    """Training produced non-finite losses for longer than its patience."""


def of_one_cell(error: Exception) -> Exception:
    """Return an error that costs one cell of a matrix; raise what must stop all of it.

    Raises:
        Exception: a defect of ours, or a file that the system refuses: the next cell would meet it
            again, after as much work.
    """
    refused = isinstance(error, OSError) and not isinstance(error, _NOT_THERE)
    if refused or exit_code(error) is None:
        raise error
    return error


def exit_code(error: BaseException) -> int | None:
    """Return the exit code for an error that a user can mend, None for a defect of ours.

    Errors of the lower floors may name their own, as an attribute ``exit_code``. A name that nobody
    knows is a plain ``LookupError`` (or a subclass of one's own), raised with a message for people;
    ``KeyError`` and ``IndexError`` come of code that looked where nothing is, and are defects.
    """
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, BadDataError):
        return BAD_DATA
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        return DISK if full else USAGE
    if isinstance(error, (KeyError, IndexError)):
        return None
    if isinstance(error, (ValueError, LookupError)):
        return USAGE
    return None


def said(error: BaseException) -> str:
    """Return an error as a line for people: what the system refused is ``FILE: REASON``."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
