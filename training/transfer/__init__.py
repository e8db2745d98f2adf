"""The `transfer` study: prospectivity from few deposits, with knowledge carried over from plentiful rows."""
