"""Compiles what may be compiled, where Cython and a C compiler are at hand; without them Python does the same work."""

from setuptools import Extension, setup

try:
    from Cython.Build import cythonize
except ImportError:
    compiled = []
else:
    headers = ["dsp/_kernel.h", "dsp/_lanes.h"]
    kernel = Extension("dsp._kernel", ["dsp/_kernel.pyx"], ["dsp"], depends=headers, extra_compile_args=["-O3"])
    mover = Extension("mediaproxy.media._mover", ["mediaproxy/media/_mover.pyx"])
    compiled = cythonize([kernel, mover], build_dir="build")
for extension in compiled:
    extension.optional = True  # cythonize forgets it

setup(ext_modules=compiled)
