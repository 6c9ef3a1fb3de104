"""From a run to numbers: metrics, limits, the sweep, tables and plots."""
