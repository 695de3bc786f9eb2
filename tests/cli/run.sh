#!/usr/bin/env bash
# run.sh CASE BIN: runs CASE/cmd (bash, in a fresh folder, programs on PATH, $SRC = project root) and compares standard output with
# CASE/stdout, standard error with CASE/stderr and the exit status with CASE/exit (default 0). A golden file that is absent is not
# compared; lines in it that start with "re:" are extended regular expressions for that line.
set -u
case_dir=$1
bin=$2
SRC=$(cd "$(dirname "$0")/../.." && pwd)
export SRC PATH="$bin:$PATH" LC_ALL=C.UTF-8
tmp=$(mktemp -d /tmp/isobit-test-cli-XXXXXX)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/case"
(cd "$tmp/case" && bash "$case_dir/cmd") >"$tmp/stdout" 2>"$tmp/stderr" </dev/null
status=$?
failed=0

compare() {
    local golden=$1 got=$2 name=$3 i=0 want line
    [ -f "$golden" ] || return 0
    mapfile -t want <"$golden"
    mapfile -t line <"$got"
    while [ $i -lt ${#want[@]} ] || [ $i -lt ${#line[@]} ]; do
        local w=${want[$i]-<nothing>} l=${line[$i]-<nothing>}
        if [[ $w == re:* ]] && [[ $l =~ ${w#re:} ]]; then :
        elif [ "$w" != "$l" ]; then
            printf '%s line %d\n  expected: %s\n  got:      %s\n' "$name" $((i + 1)) "$w" "$l"
            failed=1
        fi
        i=$((i + 1))
    done
}

compare "$case_dir/stdout" "$tmp/stdout" stdout
compare "$case_dir/stderr" "$tmp/stderr" stderr
want_status=$(cat "$case_dir/exit" 2>/dev/null || echo 0)
if [ "$status" != "$want_status" ]; then
    printf 'exit status %s, expected %s\nstderr: %s\n' "$status" "$want_status" "$(head -c 600 "$tmp/stderr")"
    failed=1
fi
exit $failed
