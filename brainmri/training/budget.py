"""How many epochs a member trains for: fewer for more images and for fine-tuning."""

from brainmri.common.params import Member, Train

# The training images of a fold of the 253 real ones, and the epochs that they, or four fifths of
# them, need: from scratch, or the last layer alone; and fine-tuning
REFERENCE_IMAGES = 202
SCRATCH_EPOCHS, FINE_TUNING_EPOCHS = 48, 14


def number_of_epochs(images: int, train: Train, member: Member) -> int:
    """Return the number of epochs of a member.

    With `auto` it falls with the square root of the number of images above `REFERENCE_IMAGES`, so
    that four times the images take twice the steps. Between epochs fixed, where the work grows with
    the data, and steps fixed, as nnU-Net has them, large sets get more steps, but not in
    proportion: docs/evaluation.md has what was measured.

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
    network = member.network
    is_fine_tuned = network.is_pretrained and not network.freeze
    most = FINE_TUNING_EPOCHS if is_fine_tuned else SCRATCH_EPOCHS
    return max(1, round(most * min(1.0, REFERENCE_IMAGES / images) ** 0.5))
