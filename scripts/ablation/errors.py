"""The one exception that is meant for the user."""


class UserError(Exception):
    """Bad input. The message is shown alone, without a traceback, and says what to do."""
