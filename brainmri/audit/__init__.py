"""What is wrong with a data set, before anybody trains: `python -m brainmri.audit`."""
