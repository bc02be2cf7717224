"""What the fork server imports, once, for all members' processes; a fork server can only be given
modules to import.
"""

from brainmri.networks.runtime import start_tensorflow

start_tensorflow()

import brainmri.training.member  # noqa: F401
