"""Where a critique cache is: a folder on a local disk, or a server."""

from __future__ import annotations

import socket
import warnings
from pathlib import Path

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.client import RemoteCritiqueCache

NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs")
"""File systems that several machines mount."""
MOUNTS = Path("/proc/mounts")


def open_cache(location: str) -> CritiqueCache | RemoteCritiqueCache:
    """Open the cache that ``cache_dir`` names.

    Args:
        location: A folder, in which ``{node}`` stands for the machine's name, or the URL of
            ``lightning-sd critique serve``.

    Warns:
        UserWarning: The folder is on a network file system.
    """
    if location.startswith(("http://", "https://")):
        return RemoteCritiqueCache(location)
    folder = Path(location.replace("{node}", socket.gethostname()))
    kind = find_network_type(folder)
    if kind is not None:
        warnings.warn(
            f"data.cache_dir={location}: it is on a network file system ({kind}), where SQLite's "
            "locks fail between machines. Use a local disk, such as /tmp/critiques, or share one "
            "cache through `lightning-sd critique serve`.",
            stacklevel=2,
        )
    return CritiqueCache(folder)


def find_network_type(path: Path) -> str | None:
    """Return the type of the network file system that holds a path; None for a local disk.

    Args:
        path: A path that need not exist yet.
    """
    if not MOUNTS.is_file():  # not Linux
        return None
    place = path.expanduser().absolute()
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    holders = [(point, kind) for point, kind in mounts if place.is_relative_to(point)]
    _, kind = max(holders, key=lambda mount: len(mount[0]), default=("", ""))
    return kind if kind in NETWORK_TYPES else None
