"""The physical properties lithostream knows, with units and plausible ranges."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One physical property.

    Attributes
    ----------
    name : str
        Column name everywhere.
    unit : str
        Unit of every value of that column.
    low, high : float
        Range a log value must lie in; outside it is masked as not a measurement of core.
    label : str
        Name on plots.
    las : str
        LAS mnemonic.
    """

    name: str
    unit: str
    low: float
    high: float
    label: str
    las: str


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        # Water to massive sulphide; Geotek gamma logs read below 1.0 only beside voids.
        Target("density", "g/cm3", 1.0, 5.2, "density", "RHOB"),
        # Water is about 1,480 m/s; gassy mud goes a little lower, no rock exceeds 8,500.
        Target("p_wave_velocity", "m/s", 1300.0, 8500.0, "P-wave velocity", "VP"),
        # Diamagnetic quartz is -1.5; massive magnetite reaches 6e5.
        Target("magnetic_susceptibility", "1e-5 SI", -10.0, 6e5, "magnetic susceptibility", "MSUS"),
    )
}
