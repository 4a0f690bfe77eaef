# SPDX-License-Identifier: Apache-2.0
"""File systems that lose what was not synced, or are full; only for root. And what is mounted."""

import os
import subprocess
from pathlib import Path


class Disk:
    """A file system in a file: what was not synced when the file is copied is lost."""

    def __init__(self, folder):
        self.image, self.mounted = folder / "disk", folder / "mounted"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self._mount()

    def _mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mounted], check=True)

    def cut(self):
        """Everything as it was on the disk; the journal is replayed by the mount."""
        with self.image.open("rb") as file:
            data = file.read()
        self.unmount()
        self.image.write_bytes(data)
        self._mount()

    def sync(self):
        subprocess.run(["sync", "-f", self.mounted], check=True)

    def unmount(self):
        for path in (*reversed(mounted_below(self.mounted)), self.mounted):
            subprocess.run(["umount", path], check=True)


class MemoryDisk:
    """A file system in memory, which can be told to be full soon."""

    def __init__(self, folder):
        self._folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", folder], check=True)

    def leave(self, room, files):
        """Room for so many bytes and so many files, beside what is there."""
        status = os.statvfs(self._folder)
        size = (status.f_blocks - status.f_bfree) * status.f_frsize + room
        inodes = status.f_files - status.f_ffree + files
        # No size would be no limit; neither would no inodes.
        self._remount(max(size, status.f_frsize), max(inodes, 1))

    def make_room(self):
        self._remount(256 * 2**20, 100_000)

    def _remount(self, size, inodes):
        options = f"remount,size={size},nr_inodes={inodes}"
        subprocess.run(["mount", "-o", options, self._folder], check=True)

    def unmount(self):
        subprocess.run(["umount", self._folder], check=True)


def mounted_below(folder):
    """Where something is mounted in a directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [at for line in lines if (at := line.split()[4]).startswith(f"{folder}/")]
