"""The one class of errors that users see."""


class LcpuError(Exception):
    """Something the user can mend: a bad file, flag or environment.

    Its message is one line: the cause and the way out.
    """
