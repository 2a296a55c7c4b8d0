"""Tables, plots and pages from the folder of a run, without a model and without a GPU."""
