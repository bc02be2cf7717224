"""DICOM files for tests of decoding."""

import io

import numpy as np
from pydicom import FileDataset, config, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

PREAMBLE = bytes(128) + b"DICM"


def encode_dicom(
    levels: np.ndarray, syntax: str = ExplicitVRLittleEndian, bare: bool = False, **elements
) -> bytes:
    """Encode levels as a DICOM file of an MR image.

    Parameters
    ----------
    levels : ndarray of integers, shape (rows, columns)
        Their type gives the bits and the sign of the pixels.
    syntax : str
        UID of the transfer syntax: uncompressed or RLE.
    bare : bool
        Whether to write neither preamble nor file meta information.
    **elements
        Other elements by keyword, in place of those of `levels`; None removes one.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    is_implicit, is_little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dataset = FileDataset(None, {}, bytes(128), meta, is_implicit, is_little)
    order = "<" if is_little else ">"
    bits = 8 * levels.itemsize
    defaults = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3",
        "Modality": "MR",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": levels.shape[0],
        "Columns": levels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(levels.dtype.kind == "i"),
        "PixelData": levels.astype(levels.dtype.newbyteorder(order)).tobytes(),
    }
    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE  # some tests need broken values
    try:
        for keyword, value in (defaults | elements).items():
            if value is not None:
                setattr(dataset, keyword, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        file = io.BytesIO()
        if bare:
            dataset.file_meta, dataset.preamble = FileMetaDataset(), None
            dcmwrite(file, dataset, implicit_vr=is_implicit, little_endian=is_little)
        else:
            dcmwrite(file, dataset, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = mode
    return file.getvalue()


def element(group: int, number: int, representation: str, value: bytes, length: int | None = None):
    """Encode an element in explicit VR, little endian; its length may differ from the value's."""
    start = group.to_bytes(2, "little") + number.to_bytes(2, "little") + representation.encode()
    length = len(value) if length is None else length
    if representation in ("OB", "OW", "SQ", "UN", "UT"):
        return start + b"\0\0" + length.to_bytes(4, "little") + value
    return start + length.to_bytes(2, "little") + value
