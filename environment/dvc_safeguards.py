"""Things in which DVC loses work, trusts too much or takes too long, put right.

- It writes dvc.lock and its list of running commands in place: killed meanwhile, or on a full disk, it leaves half a file that
  no later command reads. Here it writes whole files.
- Copying a file onto a full disk, it leaves what it has copied, under a name of its own, and tells of links to
  the cache. Here it removes that, and says that the disk is full.
- It takes a file of its cache for whole because it is read-only, and restores it damaged. Here it looks at the content, unless
  the file is as it was when it last did (by inode, size and time of change, as it takes workspace files to be).
- One file in a folder that it can't read (a link to nowhere, one without permission, a name that is not UTF-8) ends all its
  commands, and a named pipe stops them for ever. Here it warns, and leaves that file out.
- It keeps what it knows of files as pickles, in a folder that all users of the machine may write to, and a pickle can hold code.
  Here only plain values are taken from it (as in CVE-2025-69872, which has no fix upstream).
- After each stage it reads and writes all of dvc.lock in pure Python: half a second with twelve members, half a minute with a
  thousand. Here it writes anew just what changed, and the same bytes.
- The page that `dvc plots show` writes links its images and, on the network, the library that draws its charts: moved, sent or
  offline, it is empty. Here it holds them.

`make` copies this beside the installed packages, where dvc_safeguards.pth imports it whenever Python starts.
"""

import sys
from importlib.machinery import PathFinder


class Finder:
    """Waits for the import of modules of DVC, and changes them."""

    def find_spec(self, name, path, target=None):
        change = CHANGES.get(name)
        spec = change and PathFinder.find_spec(name, path)
        if not spec:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


def write_whole(path, text):
    import os
    import tempfile
    from pathlib import Path

    path = Path(path).resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_whole_yaml(module):
    import io

    in_place = module._dump_data

    def dump(path, data, dumper, fs=None, **arguments):
        if fs is not None and fs.protocol != "local":
            return in_place(path, data, dumper, fs, **arguments)
        text = io.StringIO()
        dumper(data, text, **arguments)
        write_whole(path, text.getvalue())

    module._dump_data = dump


def write_lock_file_fast(module):
    import io
    from contextlib import contextmanager
    from pathlib import Path

    known = {}  # by path: what tells the file as it was written last, and its content
    texts = {}  # by id: a stage's entry, and its text

    def identity(path):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def emit(content):
        text = io.StringIO()
        module._dump(content, text)
        return text.getvalue()

    def dump(data, stream):
        for key, value in data.items():
            if key != "stages" or not value:
                stream.write(emit({key: value}))
                continue
            stream.write("stages:\n")
            for name, stage in value.items():
                if texts.get(id(stage), (None,))[0] is not stage:
                    texts[id(stage)] = stage, emit({"stages": {name: stage}}).partition("\n")[2]
                stream.write(texts[id(stage)][1])

    in_full = module.modify_yaml

    @contextmanager
    def modify(path, fs=None):
        path = Path(path)
        if path.name != "dvc.lock" or not path.is_file() or (fs and fs.protocol != "local"):
            with in_full(path, fs=fs) as data:
                yield data
            return
        path = path.resolve()
        found, data = known.pop(path, (None, None))
        if found != identity(path):
            data = module.load_yaml(path)
        yield data
        module._dump_data(path, data, dump)
        known[path] = identity(path), data

    module.modify_yaml = modify


def write_whole_locks(module):
    import io
    from contextlib import contextmanager

    edit = module._edit_rwlock

    class WholeFiles:
        def __init__(self, fs):
            self.join = fs.join
            self._open = fs.open

        @contextmanager
        def open(self, path, mode="r", **options):
            if mode == "w":
                text = io.StringIO()
                yield text
                write_whole(path, text.getvalue())
            else:
                with self._open(path, mode, **options) as file:
                    yield file

    module._edit_rwlock = lambda folder, fs, hardlink: edit(folder, WholeFiles(fs), hardlink)


def leave_no_half_copies(module):
    import os
    from contextlib import suppress

    copy = module.copyfile

    def copyfile(source, target, *arguments, **options):
        new = not os.path.lexists(target)
        try:
            copy(source, target, *arguments, **options)
        except BaseException:
            if new:
                with suppress(OSError):
                    os.unlink(target)
            raise

    module.copyfile = copyfile


def tell_of_full_disk(module):
    import errno

    call = module.Link.__call__

    def link(self, *arguments, **options):
        try:
            return call(self, *arguments, **options)
        except module.LinkError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
                raise error.__cause__ from None
            raise

    module.Link.__call__ = link


def check_contents(module):
    cache = module.LocalHashFileDB
    cache.check = super(cache, cache).check


def leave_out_unreadable(module):
    import os
    import stat
    from types import SimpleNamespace

    files_of = module._walk_files
    told = set()

    def why_not(path):
        try:
            path.encode()
            if not stat.S_ISREG(os.stat(path).st_mode):
                return "not a regular file"
            return None if os.access(path, os.R_OK) else "no permission"
        except OSError as error:
            return error.strerror
        except UnicodeEncodeError:
            return "its name is not UTF-8"

    def can_be_read(path):
        if (reason := why_not(path)) and path not in told:
            told.add(path)
            module.logger.warning("%r is left out: %s", path, reason)
        return not reason

    def walk_files(fs, path, ignore=None):
        def walk(fs, path):
            for root, folders, files in ignore.walk(fs, path) if ignore else fs.walk(path):
                yield root, folders, [file for file in files if can_be_read(f"{root}/{file}")]

        yield from files_of(fs, path, SimpleNamespace(walk=walk) if fs.protocol == "local" else ignore)

    module._walk_files = walk_files


def unpickle_plain_values_only(module):
    import io
    import pickle
    from types import SimpleNamespace

    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    def load(file):
        return Plain(file).load()

    def loads(content):
        return load(io.BytesIO(content))

    module.pickle = SimpleNamespace(**{**vars(pickle), "load": load, "loads": loads})


def inline_vega(module):
    import sys
    from pathlib import Path

    bundle = Path(sys.prefix) / "vega.js"  # which `make` writes
    if bundle.is_file():
        code = bundle.read_text("utf-8").replace("</script", "<\\/script")
        module.VegaRenderer.SCRIPTS = f"<script>{code}</script>"


def inline_images(module):
    import base64
    import mimetypes
    from pathlib import Path

    link = module.ImageRenderer.partial_html

    def inline(source):
        if not Path(source).is_absolute():
            return source
        content = base64.b64encode(Path(source).read_bytes()).decode()
        return f"data:{mimetypes.guess_type(source)[0]};base64,{content}"

    def partial_html(self, **arguments):
        points = [{**point, self.SRC_FIELD: inline(point[self.SRC_FIELD])} for point in self.datapoints]
        return link(type(self)(points, self.name, **self.properties), **arguments)

    module.ImageRenderer.partial_html = partial_html


CHANGES = {
    "dvc.utils.serialize._common": write_whole_yaml,
    "dvc.utils.serialize._yaml": write_lock_file_fast,
    "dvc.rwlock": write_whole_locks,
    "dvc_objects.fs.local": leave_no_half_copies,
    "dvc_data.hashfile.checkout": tell_of_full_disk,
    "dvc_data.hashfile.db.local": check_contents,
    "dvc_data.hashfile.build": leave_out_unreadable,
    "diskcache.core": unpickle_plain_values_only,
    "dvc_render.vega": inline_vega,
    "dvc_render.image": inline_images,
}
sys.meta_path.insert(0, Finder())
