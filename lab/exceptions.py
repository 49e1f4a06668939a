"""What can go wrong in a lab."""


class LabError(Exception):
    """The lab cannot do what it was asked to; the message says why."""
