"""What goes wrong with data."""


class DataError(ValueError):
    """A data set that is missing, damaged or not the one expected; its text says what to do."""
