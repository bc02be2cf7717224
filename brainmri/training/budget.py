"""How many epochs a member trains for: fewer for many images and for fine-tuning."""

from brainmri.common.params import Member, Train

# Epochs that up to so many images get: from scratch, or of the last layer alone; and fine-tuning.
# With 1,100 the 3,264 images of a public set take less than six times as long as the 253.
SCRATCH_EPOCHS, FINE_TUNING_EPOCHS = 48, 14
MAX_IMAGES = 1100
MIN_EPOCHS = 3


def number_of_epochs(images: int, train: Train, member: Member) -> int:
    """Return the number of epochs of a member.

    With `auto`, more images than `MAX_IMAGES` get as many steps as these, as nnU-Net fixes the
    number of steps, but at least `MIN_EPOCHS`: docs/evaluation.md has what was measured.

    Parameters
    ----------
    images : int
        In-bag images, with repetitions.
    train : Train
    member : Member

    References
    ----------
    F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation", Nature Methods 18, 2021.
    """
    epochs = member.epochs or train.epochs
    if epochs != "auto":
        return epochs
    most = FINE_TUNING_EPOCHS if member.network.is_fine_tuned else SCRATCH_EPOCHS
    return max(MIN_EPOCHS, round(most * min(1.0, MAX_IMAGES / images)))
