"""A trained model as one file that needs neither torch nor this package, checked against the run it is of."""
