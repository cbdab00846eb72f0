"""The one exception a user is meant to read."""


class UserError(ValueError):
    """A request that cannot be met. The message says what was asked, why it cannot be, and what can."""
