"""Tables, plots and pages from a run folder; needs neither model nor GPU."""
