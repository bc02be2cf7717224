"""Ensembles of CNNs for small sets of brain MRI slices."""
