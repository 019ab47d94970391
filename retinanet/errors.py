"""The one exception for a user's mistake, so that the scripts can tell it from a bug."""


class UserError(ValueError):
    """A mistake that the user can mend; its message names the file, the thing and the fix.

    The scripts print it without a traceback and exit with code 2. Anything else that is raised is a bug and keeps
    its traceback.
    """
