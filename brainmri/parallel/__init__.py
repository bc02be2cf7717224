"""Which members must be trained, and where: processes of this machine or a Dask cluster."""
