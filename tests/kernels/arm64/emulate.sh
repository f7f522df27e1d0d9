#!/usr/bin/env bash
# All tests of kernels on an emulated 64-bit ARM machine: tests/kernels/arm64/emulate.sh FOLDER [pytest's arguments]
#
# FOLDER (1.1 GB in all; filled once, used again) gets Python from Debian's packages and the
# libraries that tests want from wheels; nothing is installed. Needs Debian 12 or alike on x86-64 with python3.11,
# aarch64-linux-gnu-g++ (g++-aarch64-linux-gnu), qemu-aarch64 (qemu-user), and an environment in which annvq can be built
# and tested: nanobind and pytest are taken from there. MACHINE names the processor (cortex-a72: without products of
# bytes).
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
arm=$folder/root
site=$folder/site
machine=${MACHINE:-neoverse-n1}

if [ ! -e "$folder/ready" ]; then
  apt=$folder/apt
  mkdir -p "$arm" "$site" "$apt"/{lists/partial,cache/archives/partial,state}
  : >"$apt/state/status"
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State=$apt/state"
    -o "Dir::State::status=$apt/state/status" -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
    -o APT::Sandbox::User=root)
  apt-get "${options[@]}" -qq update
  apt-get "${options[@]}" -qq --no-install-recommends -d -y install python3.11 libpython3.11-dev libstdc++6 libgomp1
  for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$arm"; done
  # All by name, as pip would take the dependencies of this machine. An older PyTorch: newer wheels are many times as large.
  sed '/^torch==/d' "$root/constraints.txt" >"$folder/constraints.txt"
  python -m pip install -q --target "$site" --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --abi cp311 --abi abi3 --abi none --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 -c "$folder/constraints.txt" \
    numpy scipy safetensors scikit-learn joblib threadpoolctl narwhals faiss-cpu tqdm packaging \
    'torch==2.6.0' sympy mpmath networkx jinja2 markupsafe filelock fsspec typing-extensions \
    pytest pluggy iniconfig pygments hypothesis sortedcontainers
  # Processes that tests start are emulated too.
  echo 'import os, sys; sys.executable = os.environ.get("EMULATED_PYTHON", sys.executable)' >"$site/sitecustomize.py"
  touch "$folder/ready"
fi

cmake -S "$root/annvq/kernels/csrc" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DSKBUILD=2 \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_CXX_FLAGS="-idirafter $arm/usr/include" -DPython_INCLUDE_DIR="$arm/usr/include/python3.11" \
  -DPython_EXECUTABLE="$(command -v python)" -DPython_SOABI=cpython-311-aarch64-linux-gnu \
  -DNB_SUFFIX=.cpython-311-aarch64-linux-gnu.so -Dnanobind_DIR="$(python -c 'import nanobind; print(nanobind.cmake_dir())')" \
  >"$folder/cmake.log"
cmake --build "$folder/build" --parallel 2 >>"$folder/cmake.log"
rm -rf "$folder/package" "$folder/run"
mkdir -p "$folder/package" "$folder/run"
cp -r "$root/annvq" "$folder/package/"
cp "$folder/build/_native.cpython-311-aarch64-linux-gnu.so" "$folder/package/annvq/kernels/"
cp -r "$root/tests" "$root/pyproject.toml" "$folder/run/"

cat >"$folder/python" <<END
#!/bin/sh
exec qemu-aarch64 -cpu $machine -L "$arm" -E PYTHONPATH="$folder/package:$site" -E EMULATED_PYTHON="$folder/python" \
  "$arm/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
cd "$folder/run"
# qemu-user of Debian 12 cannot fork a process that has threads, and is too slow for the time that the other test gives.
exec "$folder/python" -m pytest -q -p no:cacheprovider "${@:-tests/kernels}" \
  --deselect tests/kernels/test_threads.py::test_a_forked_child_searches_and_processes_end \
  --deselect tests/kernels/test_threads.py::test_daemon_threads_do_not_abort_a_process_that_ends
