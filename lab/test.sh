#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: test.sh [BASE]
#
# Everything that says whether the series is right: the lab's own tests, the models,
# static checks, and the selftests in guests on the patched debug kernel.  A stage that
# fails does not keep the next one from running.  Without BASE that is done for the
# first base, and for each of the others what takes little time: the series applies,
# checkpatch has nothing to say, the kernel builds, and the core guarantees hold.  The
# trees this makes, gigabytes for each base, go when their base has passed.
# ONLY="WORD..." selects: lab, spin, static, or names and groups of lab/tests.list.

. "$(dirname "$0")/lib.sh"
read -ra only <<< "${ONLY:-}"

passed=0 failed=0 skipped=0

wanted()
{
	[[ ${#only[@]} == 0 || " ${only[*]} " == *" $1 "* ]]
}

# stage NAME COMMAND...: its output as it comes, its last line added to the sum.
stage()
{
	local name=$1 status=0 sum start=$SECONDS out=$LOGS/stage-$1.out

	shift
	echo "# $name, $BASE"
	set -m
	("$@" < /dev/null | tee "$out") &
	running=$!
	set +m
	wait "$running" || status=$?
	running=
	sum=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$out" | tail -n 1) || sum=
	if [[ -z $sum ]]; then
		echo "not ok - $name, $BASE: ended with status $status and no result"
		failed=$((failed + 1))
	elif [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+) ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
		if ((status && BASH_REMATCH[2] == 0)); then
			echo "not ok - $name, $BASE: nothing failed, but it ended with status $status"
			failed=$((failed + 1))
		fi
	fi
	echo "# $name, $BASE: $((SECONDS - start)) s"
}

test_all()
{
	local word guests=()

	if ! build_programs stock patched; then
		echo "not ok - build, $BASE"
		failed=$((failed + 1))
		return
	fi
	if wanted lab; then
		stage lab "$TOP/lab/selftest.sh" "$BASE"
	fi
	if wanted spin; then
		stage spin "$TOP/lab/spin.sh"
	fi
	if wanted static; then
		stage static "$TOP/lab/check.sh" "$BASE"
	fi
	for word in ${only[@]+"${only[@]}"}; do
		[[ $word == lab || $word == spin || $word == static ]] || guests+=("$word")
	done
	if [[ ${#only[@]} == 0 || ${#guests[@]} != 0 ]]; then
		stage guests "$TOP/lab/vmtests.sh" "$BASE" "$KERNELS/patched" "$programs" ${guests[@]+"${guests[@]}"}
	fi
}

test_core()
{
	if ! build_programs patched; then
		echo "not ok - build, $BASE"
		failed=$((failed + 1))
		return
	fi
	if wanted static; then
		CHECK=checkpatch stage static "$TOP/lab/check.sh" "$BASE"
	fi
	if wanted core; then
		stage guests "$TOP/lab/vmtests.sh" "$BASE" "$KERNELS/patched" "$programs" core
	fi
}

# test_and_tidy COMMAND: what was not there before COMMAND is not there after it, unless
# it is needed to look into what failed
test_and_tidy()
{
	local dir made=() before=$failed

	for dir in "$TREE" "$OUT/check"; do
		[[ -e $dir ]] || made+=("$dir")
	done
	"$1"
	if ((failed == before && ${#made[@]})); then
		rm -rf -- "${made[@]}"
	fi
}

if [[ -n ${1:-} ]]; then
	load_base "$1"
	"$TOP/lab/deps.sh" test
	test_all
else
	mapfile -t all < <(bases)
	load_base "${all[0]}"
	"$TOP/lab/deps.sh" test
	test_and_tidy test_all
	for base in "${all[@]:1}"; do
		load_base "$base"
		test_and_tidy test_core
	done
fi

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
