#!/usr/bin/env bash
# Holds the random numbers that simulations draw (unitmass_core::rng::Lanes: stream.rs writes them) to a battery of
# TestU01: smallcrush takes seconds, crush half an hour, bigcrush hours. The seed is fixed. The whole report goes to a
# file, its summary to the terminal; fails if a test does.
#
#     benches/testu01.sh [smallcrush|crush|bigcrush]
set -euo pipefail
cd "$(dirname "$0")/.."

battery=${1:-smallcrush}
case $battery in
smallcrush | crush | bigcrush) ;;
*)
    echo "usage: benches/testu01.sh [smallcrush|crush|bigcrush]" >&2
    exit 2
    ;;
esac
if ! echo '#include <testu01/bbattery.h>' | "${CC:-cc}" -E - >/dev/null 2>&1; then
    echo "testu01.sh needs the headers of TestU01: Debian has them in libtestu01-0-dev (non-free)" >&2
    exit 2
fi

target=${CARGO_TARGET_DIR:-target}
cargo build --release --package unitmass-benches --bin stream
"${CC:-cc}" -std=c11 -O2 -Wall -o "$target/testu01" benches/testu01.c -ltestu01 -lm

report=$target/testu01_$battery.txt
status=0
"$target/release/stream" | "$target/testu01" "$battery" >"$report" || status=$?
sed -n '/Summary results/,$p' "$report" | grep . || true
echo "report: $report"
exit "$status"
