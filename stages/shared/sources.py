"""Lists the files of a source, a folder of class folders, as devices, archives, other systems and DVC leave it.

A name is the same name in composed and in decomposed Unicode: a class is named in composed form (NFC), whatever its folder.
"""

import functools
import mimetypes
import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stages.shared.errors import UserError

# Besides names that start with a dot, in lower case: what Windows, macOS, Linux, Android, NAS devices (Synology, QNAP, NetApp),
# file servers, image viewers and archive programs leave in folders.
SYSTEM_NAMES = {
    *("$recycle.bin", "recycler", "recycled", "system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"),
    *("desktop.ini", "folder.htt", "autorun.inf", "__macosx", "icon\r", "network trash folder", "temporary items"),
    *("desktop db", "desktop df", "thevolumesettingsfolder", "lost+found", "lost.dir"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "~snapshot"),
    *("picasa.ini", "zbthumbnail.info", "pspbrwse.jbf"),
}
SYSTEM_PATTERN = re.compile(r"found\.\d{3}|:2e.*|.*@syno(eastream|resource)|~syncthing~.*\.tmp")
OUTSIDE = "a symbolic link out of data.source"
CACHE_OBJECT = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")  # below DVC's cache folder; before DVC 3 without files/md5

# Names of the parts of a split, in languages that data sets come in; digits and words such as "set" or "images" don't count.
SPLIT_PARTS = """
    train training trainings test testing tests val valid validate validation validating eval evaluation holdout dev
    pred predict prediction predictions unlabeled unlabelled
    entrenamiento entrenar prueba pruebas validación validacion treino treinamento teste testes validação validacao
    entraînement entrainement apprentissage addestramento validazione validierung trainen validatie trening walidacja
    eğitim egitim doğrulama dogrulama обучение тренировка тест валидация 训练 训练集 測試 测试 测试集 验证 验证集 訓練 驗證
    学習 テスト 検証 학습 훈련 테스트 검증 تدريب اختبار
"""
MAY_BE_A_CLASS = {"valid", "val", "dev"}  # a single one of these among the class folders
# Names of classes, in letters alone
CLASS_WORDS = """
    yes no positive negative tumor tumour notumor notumour normal abnormal healthy control benign malignant cancer lesion
    glioma meningioma pituitary metastasis si sí sano sana tumores normales
"""
# Sub-folders that all classes may hold: planes, sequences and sides; those of numbered patients have digits in their names
WITHIN_CLASSES = """
    axial coronal sagittal transverse transversal ax cor sag flair dwi adc swi pd gre stir contrast plain
    left right l r male female m f axiales coronales sagitales izquierda derecha
"""


def find_files(source: Path) -> tuple[list[str], list[tuple[str, str]], list[dict]]:
    """List what is in the source. Hidden and system files and folders are passed over.

    Returns
    -------
    classes : list of str
        The class folders' names in composed Unicode, sorted.
    files : list of (class, path)
        Paths below the source, sorted by class and by path in composed Unicode.
    rejected : list of dict
        `path` and `reason` of what is not read: files beside the class folders; links that lead out of the source (but for
        DVC's own into its cache) or to folders, so that the images are those that the source itself holds; names that are no
        UTF-8, which DVC can't track.

    Raises
    ------
    UserError
        If there are fewer than two class folders, a folder can't be listed, the class folders are elsewhere in the source, or a
        file is a link out of the source.
    """
    if not source.is_dir():
        raise UserError(f"data.source: {str(source)!r} is not a folder; expected a folder of class folders")
    inside = source.resolve()
    rejected: list[dict] = []

    def list_folder(folder: str) -> Iterator[tuple[str, bool]]:
        """Paths below the source, with whether they are folders."""
        try:
            entries = sorted(os.scandir(source / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{str(source / folder)!r} can't be listed ({error.strerror}); mend it or remove it") from None
        for entry in entries:
            path = f"{folder}/{entry.name}".removeprefix("/")
            if is_hidden(entry.name):
                continue
            reason = None if is_utf8(entry.name) else "its name is not UTF-8; rename it"
            if reason := reason or (entry.is_symlink() and refused_link(entry, inside)):
                if reason == OUTSIDE and entry.is_file():  # DVC would not notice if a copy took its place
                    raise UserError(
                        f"{str(source / path)!r} is {reason}, which DVC records as if it were the file; replace it by a copy of"
                        " the file, or remove it"
                    )
                rejected.append({"path": path, "reason": reason})
            else:
                yield path, entry.is_dir()

    folders: dict[str, list[str]] = {}  # sub-folders of each folder
    files: dict[str, list[str]] = {}  # files of each folder
    pending = [""]
    while pending:
        folder = pending.pop()
        folders[folder], files[folder] = [], []
        for path, is_folder in list_folder(folder):
            (folders if is_folder else files)[folder].append(path)
        pending += folders[folder]

    if remark := check_layout(source, folders, files):
        print(remark)
    classes = sorted({composed(name) for name in folders[""]})
    if len(classes) < 2:
        why = "".join(f" ({file['path']!r}: {file['reason']})" for file in rejected[:1])
        raise UserError(
            f"data.source: {str(source)!r} has {len(classes)} class folder(s); expected two or more, one for each class{why}"
        )
    rejected += [{"path": path, "reason": "not in a class folder"} for path in files[""]]
    in_classes = [path for folder in files if folder for path in files[folder]]
    listed = [(composed(path.partition("/")[0]), path) for path in in_classes]
    listed.sort(key=lambda file: (file[0], composed(file[1]), file[1]))
    return classes, listed, sorted(rejected, key=lambda file: file["path"])


def is_hidden(name: str) -> bool:
    """Whether the listing of a folder passes over a file or folder of this name."""
    return name.startswith(".") or is_system_name(name)


def is_system_name(name: str) -> bool:
    """Whether a device, an operating system or a program left the file or folder of this name; no user made it."""
    return name.lower() in SYSTEM_NAMES or SYSTEM_PATTERN.fullmatch(name.lower()) is not None


def is_utf8(name: str) -> bool:
    """Whether a file's name, as Python gives it, is UTF-8 on the disk."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def composed(name: str) -> str:
    """The name in composed Unicode (NFC), in which equal names are equal."""
    return unicodedata.normalize("NFC", name)


def stored_paths(paths: list[str]) -> dict[str, str]:
    """The paths as the store and all tables have them: in composed Unicode, unless two files would have the same."""
    count = Counter(map(composed, paths))
    return {path: path if count[composed(path)] > 1 else composed(path) for path in paths}


def refused_link(entry: os.DirEntry, inside: Path) -> str | None:
    """Why a symbolic link is not followed, if it is not."""
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises the latter for a loop
        return "a symbolic link to nowhere"
    if target.is_dir():
        return "a symbolic link to a folder" if target.is_relative_to(inside) else OUTSIDE
    if target.is_relative_to(inside):
        return None
    cache = dvc_cache()
    in_cache = target.is_relative_to(cache) and CACHE_OBJECT.fullmatch(target.relative_to(cache).as_posix())
    return None if in_cache else OUTSIDE


@functools.cache
def dvc_cache() -> Path:
    """The folder of DVC's cache, into which its links lead with `cache.type symlink`; it may be shared by projects."""
    from dvc.config import Config  # which takes a second

    return Path(Config(dvc_dir=".dvc")["cache"].get("dir", ".dvc/cache")).resolve()


def check_layout(source: Path, folders: dict[str, list[str]], files: dict[str, list[str]]) -> str | None:
    """Refuse a source whose top-level folders are not its classes.

    Class folders may be below the parts of a split (`Training`, `Testing`), below a folder of their own, or there twice. Folders
    in a class, such as patients, may be named as they like, but for the names of other classes. Where all top-level folders
    hold folders of the same names, either may be the classes: they are taken as parts of the classes if their names have
    digits (patients) or are in `WITHIN_CLASSES`, or if the top-level folders, and not they, are in `CLASS_WORDS`; else it is
    refused.

    Parameters
    ----------
    source : Path
    folders, files : dict of str to list of str
        Of each folder below the source, "" for the source itself: its sub-folders and its files, as paths below the source.

    Returns
    -------
    str or None
        What should be printed: how sub-folders that several classes hold were understood.
    """
    top = skip_single_folders("", folders, files)
    classes = folders[top]
    if len(classes) < 2:
        return None
    here = quoted(source, top)

    parts = [path for path in classes if is_split_part(name_of(path))]
    if len(parts) > 1 or any(key_of(path) not in MAY_BE_A_CLASS for path in parts):
        named = f"data.source: {here} holds {join_names(parts)}, named as "
        inner = [skip_single_folders(path, folders, files) for path in parts]
        inner = [path for path in inner if len(folders[path]) > 1]
        if inner:
            raise UserError(f"{named}parts of a split, with the class folders in them; {choices(source, inner, folders, files)}")
        if len(parts) == len(classes):
            raise UserError(f"{named}parts of a split, and no class folders; expected one folder for each class")
        others = join_names([path for path in classes if path not in parts])
        raise UserError(f"{named}a part of a split, beside {others}; move it elsewhere, or rename it if it is a class")

    keys = {key_of(path): path for path in classes}
    for path in sorted(folders):
        ancestor = next((one for one in classes if path.startswith(f"{one}/")), None)
        is_number = ancestor and key_of(path).isdecimal() and key_of(ancestor).isdecimal()  # patient 2 of class 1
        if ancestor and key_of(path) in keys and key_of(path) != key_of(ancestor) and not is_number:
            parent = path.rpartition("/")[0]
            again = {key_of(one) for one in folders[parent]} & {*keys}
            if {*keys} - {key_of(ancestor)} <= again:
                raise UserError(
                    f"data.source: {here} holds the class folders {join_names(folders[parent])} twice, the second time in"
                    f" {quoted(source, parent)}; run `{command(source, parent)}`, or remove one of the two"
                )
            raise UserError(
                f"data.source: {quoted(source, path)} is in {quoted(source, ancestor)}, but named as another class; move or"
                " rename it"
            )

    inner = [skip_single_folders(path, folders, files) for path in classes]
    count = Counter(key for path in inner for key in {key_of(one) for one in folders[path]})
    shared = sorted(key for key in count if count[key] > 1)
    remark = None
    holders = [path for path in inner if sum(words_of(one) in CLASS_WORDS.split() for one in folders[path]) > 1]
    if holders and not any(words_of(path) in CLASS_WORDS.split() for path in classes):
        names = join_names(folders[holders[0]])
        raise UserError(
            f"data.source: {here}: {names} in {quoted(source, holders[0])} are named as classes, unlike {join_names(classes)};"
            f" {choices(source, holders, folders, files)}"
        )
    if len(shared) > 1 and not any(has_images(path, files) or not folders[path] for path in inner):
        names = join_names([next(one for path in inner for one in folders[path] if key_of(one) == key) for key in shared])
        if not are_within_classes(shared, [*keys]):
            raise UserError(
                f"data.source: {here}: {join_names(classes)} hold folders of the same names, {names}, so that either may be the"
                f" classes; for the inner ones, {choices(source, inner, folders, files)}; for the outer ones, give the inner"
                " ones names that differ"
            )
        remark = f"the classes are {join_names(classes)}; folders in several of them, {names}, are taken as parts of each"
    if top:
        raise UserError(
            f"data.source: {str(source)!r} has 1 class folder, {name_of(folders[''][0])!r}; expected two or more; if the classes"
            f" are {join_names(classes)} in {here}, run `{command(source, top)}`"
        )
    return remark


def skip_single_folders(path: str, folders: dict[str, list[str]], files: dict[str, list[str]]) -> str:
    """The first folder at or below this one that holds images, or not exactly one folder."""
    while len(folders[path]) == 1 and (not path or not has_images(path, files)):  # files directly in the source are no images
        path = folders[path][0]
    return path


def has_images(path: str, files: dict[str, list[str]]) -> bool:
    """Whether files directly in a folder may be images by their names, which tables and notes (`README`) are not."""
    names = [name_of(file) for file in files[path]]
    kinds = [mimetypes.guess_type(name, strict=False)[0] or "image" for name in names if not re.fullmatch("[A-Z]+", name)]
    return any(kind.startswith("image") for kind in kinds)


def is_split_part(name: str) -> bool:
    """Whether a folder is named as a part of a split, such as `Training`, `test_set` or `2_val images`."""
    letters = words_of(name)
    filler = "(?:data|daten|datos|set|split|images?|imgs?|imágenes|folder)"
    return not {letters, re.sub(f"^{filler}+|{filler}+$", "", letters)}.isdisjoint(SPLIT_PARTS.split())


def are_within_classes(inner: list[str], outer: list[str]) -> bool:
    """Whether folders of these names, in several of the outer ones, are parts of classes rather than classes."""
    classes = CLASS_WORDS.split()
    if all(words_of(name) in classes for name in outer) and not any(words_of(name) in classes for name in inner):
        return True
    numbered = [name for name in inner if re.search(r"\d", name)]
    if numbered and all(re.fullmatch(r"\d", name) for name in inner):  # labels such as 0 and 1, as likely as patients
        return False
    return all(name in numbered or name in WITHIN_CLASSES.split() or is_split_part(name) for name in inner)


def choices(source: Path, parts: list[str], folders: dict[str, list[str]], files: dict[str, list[str]]) -> str:
    """What to type to use the largest of these folders of class folders, or all of them."""

    def count(path: str) -> int:
        return len(files[path]) + sum(map(count, folders[path]))

    largest = f"run `{command(source, max(parts, key=count))}`"
    if len(parts) == 1:
        return largest
    target = f"{source}-joined"
    sources = " ".join(shell_word(f"{source}/{path}/.") for path in parts)
    join = f"mkdir {shell_word(target)} && cp -r --backup=numbered {sources} {shell_word(target)}"
    return f"{largest}, or use all after `{join}` with data.source={target}"


def command(source: Path, path: str) -> str:
    """The command that makes a folder below the source the source."""
    value = f"{source}/{path}"
    if not re.fullmatch(r"[\w./@ -]+", value, re.ASCII):  # Hydra would take the rest for syntax
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"dvc exp run -S {shell_word(f'data.source={value}')}"


def shell_word(text: str) -> str:
    """The text as a word that can be typed into a shell, or as Python writes it if it can't be printed."""
    return shlex.quote(text) if text.isprintable() else repr(text)


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def key_of(path: str) -> str:
    """What folders with the same name have in common: the name in composed Unicode, without regard to case."""
    return composed(name_of(path)).casefold()


def words_of(path: str) -> str:
    """The letters of a folder's name."""
    return "".join(re.findall(r"[^\W\d_]+", key_of(path)))


def quoted(source: Path, path: str) -> str:
    return repr(str(source / path))


def join_names(paths: list[str]) -> str:
    """The names of folders, the first few, for a message."""
    names = [repr(name_of(path)) for path in paths]
    if len(names) > 6:
        return ", ".join([*names[:6], "…"])
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
