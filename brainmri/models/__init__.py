"""Networks, pretrained weights, models on disk, the ensemble as one model, heat maps."""
