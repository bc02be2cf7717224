"""DVC writes dvc.lock in place: killed meanwhile, it leaves half a file that no later command reads. Here it writes whole files.

`make` copies this beside the installed packages, where whole_dvc_files.pth imports it whenever Python starts.
"""

import sys
from importlib.machinery import PathFinder

WRITER = "dvc.utils.serialize._common"


class Finder:
    """Waits for the import of DVC's writer, and changes it."""

    def find_spec(self, name, path, target=None):
        if name != WRITER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            module._dump_data = whole(module._dump_data)

        spec.loader.exec_module = execute_and_change
        return spec


def whole(in_place):
    """DVC's function that writes a file, writing whole files on this machine's disks."""

    import io
    import os
    import tempfile
    from pathlib import Path

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

    return dump


sys.meta_path.insert(0, Finder())
