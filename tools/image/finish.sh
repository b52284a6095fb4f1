#!/bin/sh
# Inside an image's build: installs Simile's wheel, removes what never runs, compiles to bytecode.
set -eu

/opt/pip/bin/pip --python /opt/simile/bin/python install --no-deps --no-index /wheels/*.whl
cd /opt/simile/lib/python3*/site-packages

# The bytecode of what is loaded is made below, at its own place.
find . -type d -name __pycache__ -prune -exec rm -rf {} +
# Of libraries: tests, headers, sources of what is compiled, type stubs.
find . -path ./services -prune -o -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
find . -path ./services -prune -o -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \
	-o -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.a' \) -exec rm -f {} +
# Lexers of five hundred languages, of which a traceback shows one.
find ./pygments/lexers -name '[a-z]*.py' ! -name python.py -delete
rm -rf numpy/f2py numpy/distutils
# OpenVINO runs ONNX on the CPU: no other devices, no other formats.
rm -rf openvino/libs/libopenvino_intel_gpu_plugin.so openvino/libs/libopenvino_intel_npu_plugin.so \
	openvino/libs/cache.json openvino/tools
for format in gguf jax paddle pytorch tensorflow tensorflow_lite; do
	rm -rf "openvino/frontend/$format" openvino/libs/libopenvino_"$format"_frontend.so*
done
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools
# Symbols of extension modules that only a debugger reads; whatever that breaks fails below.
find . -name '*.cpython-*.so' -exec strip --strip-unneeded {} +

/opt/simile/bin/python /image/bytecode.py /opt/simile/bytecode
