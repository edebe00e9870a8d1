#!/bin/sh
# Downloads the wheels that wheels.txt names, without what they need, to be carried to a machine without a network:
#
#     experiments/gpu/wheels.sh FOLDER
#
# There: python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl, and SITE goes into PYTHONPATH.
set -eu
here=$(dirname "$0")
folder=${1:?"usage: wheels.sh FOLDER"}
platforms=
for number in 5 12 17 24 27 28 31 34 35; do
    platforms="$platforms --platform manylinux_2_${number}_x86_64"
done
# shellcheck disable=SC2086 # one word for each
python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux2014_x86_64 $platforms --dest "$folder" --requirement "$here/wheels.txt"
du -sh "$folder"
