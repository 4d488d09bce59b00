"""The control groups (cgroups) around this process: the folders where Linux keeps their limits.

Version 1 has a tree for each controller, version 2 one tree for all, and a system may have both. In a container, the
process often sees its own group as the root of the tree. Formats: man 7 cgroups, man 5 proc_pid_mountinfo.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_USUAL = Path("/sys/fs/cgroup")


def cgroup_folders(controller: str) -> list[Path]:
    """The folders of all groups that may limit this process by a controller such as "cpu" or "memory".

    Some may not exist. Empty where there are no control groups.
    """
    mounts = _mounts(controller)
    folders: list[Path] = []
    for line in _lines("/proc/self/cgroup"):  # number:controllers:path; of version 2, 0::path
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for version, root, mount in mounts:
            if version == (1 if controllers else 2):
                folders += _around(group, root, mount)
    return list(dict.fromkeys(folders))


def read_limit(*files: Path) -> list[int] | None:
    """The numbers in some files, in order; None if one is missing or has something else, such as "max"."""
    try:
        return [int(number) for file in files for number in file.read_text().split()]
    except (OSError, ValueError):
        return None


def _around(group: str, root: str, mount: Path) -> list[Path]:
    """The folder of a group, and those of the groups around it, up to where the tree is mounted."""
    if root != "/" and (group + "/").startswith(root + "/"):  # only a part of the tree is mounted
        group = group[len(root) :]
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _mounts(controller: str) -> list[tuple[int, str, Path]]:
    """(version, which group is mounted, where) of each tree with a controller; the usual places if none is listed."""
    found = []
    for line in _lines("/proc/self/mountinfo"):  # id parent device root mount options [tag ...] - type source options
        fields, _, rest = line.partition(" - ")
        place, kind = fields.split(" ")[3:5], rest.split(" ")
        if len(place) == 2 and (kind[0] == "cgroup2" or (kind[0] == "cgroup" and controller in kind[-1].split(","))):
            root, mount = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path) for path in place)
            found.append((2 if kind[0] == "cgroup2" else 1, root, Path(mount)))
    return found or [(1, "/", _USUAL / controller), (2, "/", _USUAL), (2, "/", _USUAL / "unified")]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (OSError, ValueError):
        return []
