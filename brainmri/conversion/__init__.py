"""Conversion of the pretrained weights that are installed into files of Keras."""
