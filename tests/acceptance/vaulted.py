"""A directory of playbooks with everything that ansible-vault encrypts, and a look for its password everywhere."""

import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LABEL: Final = "prod"
PROGRAM: Final = Path(sys.executable).parent / "ansible-vault"
CONTENT: Final = Path(__file__).parent / "vaulted_playbooks"


@dataclass(frozen=True)
class Vaulted:
    """The directory, its playbook `vaulted`, and the file with the password."""

    directory: Path
    file: Path
    password: str

    @property
    def setting(self) -> str:
        """The vaults of this directory, as the service is told of them."""
        return f"{self.directory}={LABEL}@{self.file}"

    @property
    def ciphertext(self) -> str:
        """Something that the password opens."""
        return (self.directory / "files.yml").read_text()

    def found_in(self, *places: Path) -> list[str]:
        """The files below these places that hold the password."""
        secret = self.password.encode()
        return [
            str(path)
            for place in places
            for path in ([place] if place.is_file() else place.rglob("*"))
            if path.is_file() and not path.is_symlink() and secret in _content(path)
        ]

    def processes_that_tell(self) -> list[str]:
        """The processes of this machine with the password on their command line or in their environment."""
        return self.found_in(*(Path(f"/proc/{pid}/{name}") for pid in _processes() for name in ("cmdline", "environ")))

    def readers(self) -> list[str]:
        """The processes that were told where the password is."""
        told = f"ANSIBLE_VAULT_IDENTITY_LIST={LABEL}@{self.file}".encode()
        return [pid for pid in _processes() if told in _content(Path(f"/proc/{pid}/environ"))]


def _processes() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just gone
        return b""


def make(home: Path) -> Vaulted:
    """A copy of the directory, encrypted by ansible-vault itself."""
    directory, file, password = home / "vaulted", home / "password", f"v4ult-{uuid.uuid4().hex}"
    file.touch(mode=0o600)
    file.write_text(f"{password}\n")
    shutil.copytree(CONTENT, directory)
    for name in ("files.yml", "group_vars/all.yml"):
        _vault(file, "encrypt", str(directory / name))
    inline = _vault(file, "encrypt_string", "1nline-value").strip().replace("\n", "\n      ")
    play = (directory / "vaulted.yml").read_text()
    (directory / "vaulted.yml").write_text(play.replace("INLINE", inline).replace("PASSWORD_FILE", str(file)))
    return Vaulted(directory, file, password)


def _vault(file: Path, *words: str) -> str:
    command = [str(PROGRAM), *words, f"--vault-id={LABEL}@{file}", f"--encrypt-vault-id={LABEL}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
