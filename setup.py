"""The compiled parts, all optional: without a compiler or Cython the same work is done in Python."""

from setuptools import Extension, setup

try:
    from Cython.Build import cythonize
except ImportError:
    extensions = []
else:
    extensions = cythonize(
        [
            Extension(
                "mediaproxy.media._mover", ["mediaproxy/media/_mover.pyx"], extra_compile_args=["-O3"], optional=True
            )
        ],
        build_dir="build",
    )

setup(ext_modules=extensions)
