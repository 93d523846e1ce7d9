"""What a user can cause: one class for wrong usage, one for a run that cannot go on.

Each is raised with a message that names the field or file, what was got, what is allowed and what
to do. launch.py prints the message alone; a traceback is for our own mistakes.
"""


class UserError(Exception):
    """A run cannot start or go on, for a reason outside the program. Exit status 1."""

    exit_status = 1


class UsageError(UserError):
    """A flag or a config field is wrong. Exit status 2."""

    exit_status = 2
