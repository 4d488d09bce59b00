"""The class of all errors that users see."""


class LcpuError(Exception):
    """An error that the user can fix: a bad file, flag or environment.

    Its message is one line: the cause and the way out.
    """
