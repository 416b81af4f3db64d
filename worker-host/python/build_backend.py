"""Builds the package for pip (PEP 517 and PEP 660), with the standard library alone: it is pure Python, so a wheel is a zip file."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, Optional

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE / "src"


def _version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (_SOURCES / "workhall" / "__init__.py").read_text(), re.MULTILINE)
    assert found, "the package says its version"
    return found.group(1)


_NAME = f"workhall-{_version()}"
_INFO = f"{_NAME}.dist-info"
_WHEEL = f"{_NAME}-py3-none-any.whl"


def _metadata() -> str:
    return (
        "Metadata-Version: 2.1\n"
        "Name: workhall\n"
        f"Version: {_version()}\n"
        "Summary: Workers and callers of Workhall, the supervisor of named workers\n"
        "License: MIT OR Apache-2.0\n"
        "Requires-Python: >=3.9\n"
        "Description-Content-Type: text/markdown\n"
        "Classifier: Operating System :: POSIX :: Linux\n"
        "Classifier: Typing :: Typed\n"
        "\n" + (_HERE / "README.md").read_text(encoding="utf-8")
    )


def _sources() -> Dict[str, bytes]:
    files = sorted(path for path in (_SOURCES / "workhall").iterdir() if path.suffix == ".py" or path.name == "py.typed")
    return {str(path.relative_to(_SOURCES)): path.read_bytes() for path in files}


def _wheel(directory: str, files: Dict[str, bytes]) -> str:
    files = {
        **files,
        f"{_INFO}/METADATA": _metadata().encode(),
        f"{_INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: workhall\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(Path(directory) / _WHEEL, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        wheel.writestr(f"{_INFO}/RECORD", f"{record}{_INFO}/RECORD,,\n")
    return _WHEEL


def build_wheel(
    wheel_directory: str, config_settings: Optional[Dict[str, Any]] = None, metadata_directory: Optional[str] = None
) -> str:
    return _wheel(wheel_directory, _sources())


def build_editable(
    wheel_directory: str, config_settings: Optional[Dict[str, Any]] = None, metadata_directory: Optional[str] = None
) -> str:
    return _wheel(wheel_directory, {"workhall.pth": f"{_SOURCES}\n".encode()})


def build_sdist(sdist_directory: str, config_settings: Optional[Dict[str, Any]] = None) -> str:
    name = f"{_NAME}.tar.gz"
    with tarfile.open(Path(sdist_directory) / name, "w:gz") as archive:
        files = {f"src/{path}": data for path, data in _sources().items()}
        files["PKG-INFO"] = _metadata().encode()
        for path in ("pyproject.toml", "build_backend.py", "README.md"):
            files[path] = (_HERE / path).read_bytes()
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{_NAME}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return name
