"""Build script: everything static stands in pyproject.toml, only the optional extension is here."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools_rust import Binding, RustExtension

EXTENSION = RustExtension(
    "vmsavedstate._extension",
    path="rust/Cargo.toml",
    binding=Binding.PyO3,
    py_limited_api=True,
    debug=False,  # editable installs would otherwise get an unoptimised extension
    optional=True,  # without a Rust toolchain the Python codec serves
)


class HonestWheel(bdist_wheel):  # type: ignore[misc]  # setuptools is not typed
    """Tags the wheel by what was really built: abi3 with the extension, pure Python without."""

    def finalize_options(self) -> None:
        """Set the stable-ABI tag of the oldest supported Python."""
        self.py_limited_api = "cp310"
        super().finalize_options()

    def run(self) -> None:
        """Build first, then decide on the tag."""
        self.run_command("build")
        built = Path(self.get_finalized_command("build").build_lib, "vmsavedstate")
        self.root_is_pure = not [*built.glob("_extension*.so"), *built.glob("_extension*.pyd")]
        super().run()


setup(rust_extensions=[EXTENSION], cmdclass={"bdist_wheel": HonestWheel})
