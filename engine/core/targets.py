"""The properties lithostream knows, with units and plausible ranges."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One property: physical, or the count of an element.

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
        # Peak areas of a core scanner: they compare within one instrument, tube and counting time. No line of a
        # scan of some seconds gathers 1e8 photons.
        Target("xrf_calcium", "counts", 0.0, 1e8, "calcium (XRF)", "CA_XRF"),
        Target("xrf_iron", "counts", 0.0, 1e8, "iron (XRF)", "FE_XRF"),
        Target("xrf_manganese", "counts", 0.0, 1e8, "manganese (XRF)", "MN_XRF"),
        Target("xrf_titanium", "counts", 0.0, 1e8, "titanium (XRF)", "TI_XRF"),
    )
}
