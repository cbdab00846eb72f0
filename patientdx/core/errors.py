"""The one exception whose message is written for the user."""


class UserError(ValueError):
    """A request that is not valid. The message says what was asked, why it is not valid, and what is."""
