"""The error tree, grouped by what a handler does next.

Every error that leaves the package is one of these; foreign exceptions are translated where the foreign library is
imported. A message names the file, line, key or hour at fault and the way out.

    LakehouseError
     |- TransientError           retry the request here (throttle, reset, timeout)
     |- CommitConflictError      refresh, validate and commit again; never rewrite the data files
     |- CommitStateUnknownError  read back first; delete nothing
     |- DataError                no retry: reject the rows or fail the hour
     |- ConfigurationError       no retry: every problem at once
     `- SafetyError              a destructive or unsafe step was refused
"""


class LakehouseError(Exception):
    """Root of every error that this package raises on purpose."""


class TransientError(LakehouseError):
    """The same request may succeed later: a throttle, a reset, a timeout, a source that changed while it was read."""


class CommitConflictError(LakehouseError):
    """The table moved on: refresh, validate again, commit again. The data files stay as they are."""


class CommitStateUnknownError(LakehouseError):
    """Whether the commit landed is not known: read the table back before anything else, and delete nothing."""


class DataError(LakehouseError, ValueError):
    """The data is not what the spec says; names the file, the position in it and the column."""


class ConfigurationError(LakehouseError, ValueError):
    """A spec, setting or command is wrong; lists every problem, each with its file and line where it has one."""


class SafetyError(LakehouseError):
    """A step was refused because it could lose data or break the table."""
