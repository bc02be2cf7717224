"""Bagged ensembles of CNNs for small sets of brain MRI slices."""
