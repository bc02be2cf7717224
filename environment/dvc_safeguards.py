"""Two things in which DVC loses work, put right.

- It writes dvc.lock in place: killed meanwhile, it leaves half a file that no later command reads. Here it writes whole files.
- It takes a file of its cache for whole because it is read-only, and restores it damaged. Here it looks at the content, unless
  the file is as it was when it last did (by inode, size and time of change, as it takes workspace files to be).

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


def write_whole_files(module):
    import io
    import os
    import tempfile
    from pathlib import Path

    in_place = module._dump_data

    def dump(path, data, dumper, fs=None, **arguments):
        if fs is not None and fs.protocol != "local":
            return in_place(path, data, dumper, fs, **arguments)
        text = io.StringIO()
        dumper(data, text, **arguments)
        path = Path(path).resolve()
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text.getvalue())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    module._dump_data = dump


def check_contents(module):
    cache = module.LocalHashFileDB
    cache.check = super(cache, cache).check


CHANGES = {"dvc.utils.serialize._common": write_whole_files, "dvc_data.hashfile.db.local": check_contents}
sys.meta_path.insert(0, Finder())
