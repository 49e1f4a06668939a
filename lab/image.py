"""The images: one folder for each kind of device, shared read-only by all devices of all labs."""

import fcntl
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from lab import recipe
from lab.exceptions import LabError
from lab.fleet import Kind
from lab.namespaces import STAGE, contained, owner_id


def image_name(kind: Kind) -> str:
    """Name the image's folder after everything that goes into it, so that a change makes a new one."""
    digest = hashlib.sha256(Path(recipe.__file__).read_bytes())
    digest.update(f"{recipe.suite()} {platform.machine()} {owner_id()}".encode())
    if kind is Kind.OPENWRT:
        digest.update(recipe.program("busybox").read_bytes())
        digest.update(recipe.program("dropbear").read_bytes())
    return f"{kind}-{digest.hexdigest()[:12]}"


def ensure(kinds: Iterable[Kind], images: Path) -> dict[Kind, str]:
    """Build the images that are missing; return the names of their folders.

    Safe when several processes start at once: one builds, the others wait for it.

    Raises:
        LabError: a build failed; what it said is on stderr.
    """
    names = {kind: image_name(kind) for kind in kinds}
    if all((images / name).is_dir() for name in names.values()):
        return names
    images.mkdir(parents=True, exist_ok=True)
    with (images / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.geteuid() == 0:
            os.chown(images, owner_id(), owner_id())
        for kind, name in names.items():
            if not (images / name).is_dir():
                _build(kind, name, images)
    return names


def _build(kind: Kind, name: str, images: Path) -> None:
    """Build one image; all of it or nothing."""
    print(f"lab: building the {kind} image", file=sys.stderr, flush=True)

    def build() -> None:
        os.umask(0o022)
        unfinished = STAGE / "images" / f"{kind}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a build that was killed
        unfinished.mkdir()
        os.dup2(2, 1)  # what the tools say is no output of ours
        recipe.BUILD[kind](unfinished)
        unfinished.rename(STAGE / "images" / name)

    status = os.waitpid(contained(build, {"images": images}), 0)[1]
    if status:
        raise LabError(f"the {kind} image could not be built in {images}")
