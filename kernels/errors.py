"""Errors of the array contracts."""


class ContractError(ValueError):
    """An array argument breaks its contract; the message names the argument, expected and got."""


class DeviceMismatchError(TypeError):
    """Arrays of one call live on different devices."""


class BackendUnavailableError(ImportError):
    """The code for a device is not installed; the message names what to install."""
