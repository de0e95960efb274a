"""The error that says why nothing can be measured."""


class CannotMeasure(RuntimeError):
    """The device, the folder or what is asked for does not allow a measurement; the message says what would."""
