# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# Tests that may fail
#
runner=$project/linux/tools/testing/selftests/vfio/vmtest.sh
mkdir -p "${runner%/*}"
printf '#!/bin/sh\ncat "%s/ktap"\n! grep -q "^not ok" "%s/ktap"\n' "$work" "$work" > "$runner"
chmod +x "$runner"
echo 'fake | | 1 | 10 | | fake' > "$project/lab/tests.list"

ktap()
{
	echo "1..$#"
	printf '%s\n' "$@" | awk '{ sub(/ok/, "ok " NR); print }'
}

expected()
{
	printf '%s\n' "$@" > "$project/lab/expected.list"
}

run_fake()
{
	lab vmtests 0.1 "$work/kernel" "$work"
}

ktap 'ok a.good' 'not ok a.bad' > "$work/ktap"
expected '# nothing'
expect 'a test that fails' 1 '^not ok [0-9]+ - fake: a.bad$' run_fake
expected '# fixed in | name | test | reason' '' '0.2 | fake | a.bad | it is old' '0.1 | fake | a.good | no'
expect 'a test that may fail on kernels this old' 0 '^ok [0-9]+ - fake: a.bad # SKIP fixed in 0.2: it is old$' run_fake
expect 'is not counted as failed' 0 '^1 passed, 0 failed, 1 skipped$' run_fake
ktap 'ok a.good' 'not ok a.bad' 'not ok a.worse' > "$work/ktap"
expect 'beside it another may not' 1 '^1 passed, 1 failed, 1 skipped$' run_fake
ktap 'ok a.good' 'ok a.bad' > "$work/ktap"
expect 'a test that may fail and passes' 1 '^not ok [0-9]+ - fake: a.bad \(passes, ' run_fake
ktap 'ok a.good' 'ok a.bad # SKIP nothing to do' > "$work/ktap"
expect 'a test that may fail and skips' 0 '^1 passed, 0 failed, 1 skipped$' run_fake
ktap 'ok a.good' > "$work/ktap"
expect 'a test that may fail and is not there' 1 '^not ok [0-9]+ - fake: a.bad \(.* no such test\)$' run_fake
ktap 'ok a.good' 'not ok a.bad' > "$work/ktap"
expected '0.1 | fake | a.bad | it was older'
expect 'a test that may fail on older ones' 1 '^not ok [0-9]+ - fake: a.bad$' run_fake
expected '0.2 | fake | a.bad'
expect 'a test that may fail without a reason' fail 'expected.list:1: not' run_fake
expected '0.2 | fake | a.bad |'
expect 'or with an empty one' fail 'expected.list:1: not' run_fake
