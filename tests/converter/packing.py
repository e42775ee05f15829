"""Archives as people have them: by tar(1), by Python's writers, and in forms of our own making."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tar_of(members: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar by Python's writer."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


class _Unseekable(io.RawIOBase):
    """A stream to write from begin to end, so that a zip's sizes follow its members."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.parts.append(bytes(data))  # type: ignore[call-overload]
        return len(self.parts[-1])


def zip_of(
    members: Mapping[str, bytes],
    method: int = zipfile.ZIP_STORED,
    *,
    zip64: bool = False,
    streamed: bool = False,
) -> bytes:
    """A zip by Python's writer; ``zip64``: with 64-bit sizes before each member."""
    stream = _Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                member.write(data)
    return b"".join(stream.parts) if isinstance(stream, _Unseekable) else stream.getvalue()


def deflated(members: Mapping[str, bytes]) -> bytes:
    """A zip of compressed members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def tar_by_command(folder: Path, tar: Path, *args: str) -> None:
    """A tar by tar(1), with what ``args`` name below the folder."""
    subprocess.run(["tar", "-C", str(folder), "-cf", str(tar), *args], check=True)


def pack_folders(root: Path, suffix: str = ".tar", *, inside: bool = True) -> int:
    """Each folder of a root becomes an archive; ``inside``: with the folder's name in it."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    for folder in folders:
        archive = root / f"{folder.name}{suffix}"
        if suffix == ".tar":
            what = (root, folder.name) if inside else (folder, ".")
            tar_by_command(what[0], archive, what[1])
        else:
            prefix = f"{folder.name}/" if inside else ""
            archive.write_bytes(zip_of({prefix + n: d for n, d in files_below(folder).items()}))
        shutil.rmtree(folder)
    return len(folders)
