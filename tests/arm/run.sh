#!/usr/bin/env bash
# The tests that say most, on emulated Arm processors: run.sh [PROCESSOR...]. Each takes about eight minutes.
# neoverse-n1 has dot products, max also those of int8 matrices and bfloat16 (as Neoverse V1 has), cortex-a72 neither.
# `run.sh short` tests activations and two formats on max, which takes a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
declare -A path=([neoverse-n1]=neon-dotprod [max]=neon-i8mm [cortex-a72]=neon)

write_text() {  # what the embedded model writes on a processor, which must be what the generic path writes there
    export ARM_CPU=$1
    local said text plain
    said=$(tests/arm/python.sh -m lcpu run -v -p "Once upon a time" -n 12 --temp 0 2>&1 >/dev/null </dev/null)
    grep -q "${path[$1]} (" <<<"$said" || { echo "error: $1 does not take ${path[$1]}: $said" >&2; exit 1; }
    text=$(tests/arm/python.sh -m lcpu run -p "Once upon a time" -n 12 --temp 0 2>/dev/null </dev/null)
    plain=$(LCPU_ISA=generic tests/arm/python.sh -m lcpu run -p "Once upon a time" -n 12 --temp 0 2>/dev/null </dev/null)
    [[ -n $text && $text == "$plain" ]] || { echo "error: on $1 '$text' is not '$plain'" >&2; exit 1; }
    echo "$1: ${path[$1]} writes what the generic path writes"
}

tests/arm/python.sh -c ""  # sets itself up
test_some() {  # processor, which tests
    LCPU_TEST_ONE_OF_EACH=1 ARM_CPU=$1 tests/arm/python.sh -m pytest -q -p no:cacheprovider -o timeout=0 \
        tests/kernels/test_activations.py tests/kernels/test_matmul.py tests/engine/test_identity.py -k "$2"
}

if [[ ${1:-} == short ]]; then
    test_some max "twin or large_blocks or (close_to_float64 and (q8_0 or q4_k))"
    exit
fi
for cpu in "${@:-neoverse-n1 max cortex-a72}"; do
    for one in $cpu; do
        write_text "$one"
        test_some "$one" "twin or test_the_same_bits or ((close_to_float64 or for_every_split) and (q8_0 or q4_0 or q4_k or i2_s or f16)) or (test_identity and (q8_0 or mixture) and threads)"
    done
done
