"""Writing a file that the user named: whole or not at all, and never onto something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pfnmap.errors import BadInput

__all__ = ["check_writable", "write_whole"]

_THERE: Final = "is there already; --force writes over it"


def check_writable(path: str | os.PathLike[str], *, force: bool) -> None:
    """Say of a file that could not be written, before the work is done that it is for.

    Raises BadInput for one that is there already, unless `force`, and for one in no directory.
    """
    if os.path.lexists(path) and not force:
        raise BadInput(str(path), _THERE)
    if not Path(path).absolute().parent.is_dir():
        raise BadInput(str(path), "no directory to write it to")


def write_whole(path: str | os.PathLike[str], content: bytes, *, force: bool) -> None:
    """Write a file that is not there yet, or with `force` in the place of one that is.

    The file appears as a whole or not at all; a name that is a symbolic link is replaced itself, and what it leads to
    is left alone. Raises BadInput where the file cannot be written, and unless `force` where it is there already.
    """
    path = Path(path)
    new = path.with_name(f".{path.name[:200]}.{os.getpid()}") if force else path
    try:
        if force and path.exists() and not path.is_file():
            raise BadInput(str(path), "no file that could be written over")
        file = new.open("xb")  # no symbolic link is followed
        try:
            with file:
                file.write(content)
            if force:
                new.replace(path)
        except OSError:
            new.unlink()
            raise
    except FileExistsError:
        raise BadInput(str(path), _THERE) from None
    except (OSError, ValueError) as error:
        raise BadInput(str(path), f"cannot be written: {getattr(error, 'strerror', None) or error}") from None
