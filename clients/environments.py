"""Where the programs are installed: environments under build/clients, apart from our own."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "clients"


def ready(name: str) -> Path:
    """Install an environment if what it asks for has changed; the folder of its programs."""
    folder = BUILD / name
    asked = HERE / ("package.json" if name == "node" else f"requirements-{name}.txt")
    wanted, mark = hashlib.sha256(asked.read_bytes()).hexdigest(), folder / "installed"
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if name == "node":
            shutil.copy(asked, folder)
            _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
        else:
            _run(sys.executable, "-m", "venv", str(folder))
            _run(str(folder / "bin" / "python"), *["-m", "pip", "-q", "install", "-r"], str(asked))
        mark.write_text(wanted)
    return folder / ("node_modules/.bin" if name == "node" else "bin")


def version(environment: str, package: str) -> str:
    """The version of a package that is installed in an environment."""
    folder = BUILD / environment
    if environment == "node":
        told = (folder / "node_modules" / package / "package.json").read_text()
        return str(json.loads(told)["version"])
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run(
        [folder / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
