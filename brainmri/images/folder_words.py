"""What the names of folders mean: a part of a split, a class, or something within a class."""

import re

from brainmri.common.file_names import to_nfc


def _matcher(words: str) -> re.Pattern:
    """Compile words, separated by spaces, into a pattern; a letter before a ? is optional."""
    return re.compile("|".join(words.split()))


# Parts of a split, in the languages of data sets, without digits and `FILLER`
PARTS = {
    "training": _matcher("""
        train trainings? trainval entrenamiento entrenar treino treinamento entraînement
        entrainement apprentissage addestramento trainen trening eğitim egitim обучение тренировка
        训练 训练集 訓練 学習 학습 훈련 تدريب
    """),
    "test": _matcher("""
        test testing tests testes? pruebas? eval evaluation holdout heldout тест 測試 测试 测试集
        テスト 테스트 اختبار
    """),
    "validation": _matcher("""
        val valid validate validation validating dev validación validacion validação validacao
        validazione validierung validatie walidacja doğrulama dogrulama валидация
        验证 验证集 驗證 検証 검증
    """),
    "no labels": _matcher("pred predict predictions? unlabell?ed"),
}
FILLER = "(?:data|daten|datos|set|split|images?|imgs?|imágenes|folder|external|internal)"
MAY_BE_A_CLASS = {"valid", "val", "dev"}  # if only one of these is among the class folders

# What outlines or lists what is in images; with a digit, as `label_0`, it may be a class
MASKS = _matcher("""
    masks? segmentations? annotations? labels? groundtruths? gt
    m[áa]scaras? masques? masken? maschera maschere
""")
MASK = re.compile("(?:mask|segmentation)s?")
NOT_MASKS = _matcher("no non not with without un pre post before after")  # beside that word
AUGMENTED = re.compile("augment|aumentad")
COPIES = _matcher("aug backups? bak cop(?:y|ies) copias? respaldos? duplicates?")

# Classes, in letters alone
CLASS = _matcher("""
    yes no positive negative tumou?r notumou?r normal abnormal healthy control benign malignant
    cancer lesion glioma meningioma pituitary metastasis si sí sano sana tumores normales
""")

MAX_CLASSES = 6  # that inner folders probably are, such as grades

# Planes, sequences, sides and formats, of which every class may have a folder
WITHIN_CLASS = _matcher("""
    axial coronal sagittal transverse transversal ax cor sag flair dwi adc swi pd gre stir contrast
    mprage spgr plain left right l r male female m f axiales coronales sagitales izquierda derecha
    slices? png jpe?g dicom
""")


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def key_of(path: str) -> str:
    """Return what folders of the same name share: it in composed Unicode, without case."""
    return to_nfc(name_of(path)).casefold()


def letters_of(path: str) -> str:
    """Return the letters of a folder's name, without case."""
    return "".join(re.findall(r"[^\W\d_]+", key_of(path)))


def words_of(path: str) -> list[str]:
    """Return the words of a path, without case; digits count as letters."""
    return re.findall(r"[^\W_]+", to_nfc(path).casefold())


def split_part(path: str) -> str | None:
    """Return the part of a split, a key of `PARTS`, as which a folder is named; None if it is none.

    `Training`, `test_set`, `2_val images`: digits and words such as "set" or "images" do not count.
    """
    letters = letters_of(path)
    core = re.sub(f"^{FILLER}+|{FILLER}+$", "", letters)
    for part, words in PARTS.items():
        if words.fullmatch(letters) or words.fullmatch(core):
            return part
    return None


def is_masks(path: str) -> bool:
    """Check whether a folder is named as masks or annotations are: `labels`, `tumor_masks`."""
    words = words_of(name_of(path))
    if MASKS.fullmatch("".join(words)):
        return True
    is_named = bool(words) and MASK.fullmatch(words[-1]) is not None
    return is_named and not any(map(NOT_MASKS.fullmatch, words))


def is_augmented(path: str) -> bool:
    """Check whether a path has a folder that is named as augmented copies are."""
    return AUGMENTED.search(path.casefold()) is not None


def is_copies(path: str) -> bool:
    """Check whether a path has a folder that is named as copies are: `backup`, `augmented`."""
    ends = [word for part in map(words_of, path.split("/")) for word in (*part[:1], *part[-1:])]
    return is_augmented(path) or any(map(COPIES.fullmatch, ends))


def class_within(path: str) -> str:
    """Return the name of a folder without that of a part or a copy at one end, or a mask in front.

    Letters and digits of `yes` for `yes_train`, `Test - Yes`, `yes (copy)` and `mask_yes`; of the
    whole name where no end is one of these.
    """
    words = words_of(name_of(path))
    for count in range(1, len(words)):
        first, last = "_".join(words[:count]), "_".join(words[-count:])
        if split_part(last) or is_copies(last):
            return "".join(words[:-count])
        if split_part(first) or is_copies(first) or is_masks(first):
            return "".join(words[count:])
    return "".join(words)


def are_numbered(paths: list[str]) -> bool:
    """Check whether names of folders differ in a number or a letter at the end alone."""
    matches = [re.fullmatch(r"(.*?)[\W_]*(?:\d+|[^\W\d_])", key_of(path)) for path in paths]
    return all(matches) and len({match[1] for match in matches}) == 1


def is_class(path: str) -> bool:
    """Check whether a folder is named as a class is: `yes`, `glioma`."""
    return CLASS.fullmatch(letters_of(path)) is not None


def is_within_class(path: str) -> bool:
    """Check whether a folder is named as no class is: `images`, `axial`, `train`, `masks`."""
    return (
        re.fullmatch(f"{FILLER}+", letters_of(path)) is not None
        or WITHIN_CLASS.fullmatch(key_of(path)) is not None
        or split_part(path) is not None
        or is_masks(path)
        or is_augmented(name_of(path))
    )


def are_within_classes(inner: list[str], outer: list[str], is_grid: bool) -> bool:
    """Check whether folders that several others hold are parts of classes, by their names.

    They are if the outer ones are named as classes, and they are not. Otherwise each must have a
    digit, as the folders of patients have, or be named as a plane, a sequence or a side. Names with
    digits don't suffice if they are single digits, which may be labels; if they are no more than
    the outer ones, since there are more patients than classes; or if they are few and the same in
    all outer ones, as of few patients they hardly are.

    Parameters
    ----------
    inner, outer : list of str
        Keys of the folders; see `key_of`.
    is_grid : bool
        Whether all outer ones hold the same.
    """
    if all(map(is_class, outer)) and not any(map(is_class, inner)):
        return True
    numbered = [key for key in inner if re.search(r"\d", key)]
    if numbered and all(re.fullmatch(r"\d", key) for key in inner):
        return False
    if numbered and len(inner) <= (max(len(outer), MAX_CLASSES) if is_grid else len(outer)):
        return False
    return all(key in numbered or WITHIN_CLASS.fullmatch(key) for key in inner)
