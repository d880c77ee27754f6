#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: test.sh [BASE|all]
#
# Everything that says whether the series is right: the lab's own tests, the models,
# static checks, and the selftests in guests on the patched debug kernel.  A stage that
# fails does not keep the next one from running.  Without BASE that is done for the
# newest base.  For the others no kernel is built, but drivers/vfio with sparse and the test
# programs, and checkpatch looks at the patches.  "test.sh BASE" does everything for one of
# them.  The trees this makes, gigabytes for each base, go when their base has passed.
# ONLY="WORD..." selects: lab, spin, static, or names and groups of lab/tests.list.

. "$(dirname "$0")/lib.sh"
read -ra only <<< "${ONLY:-}"
unset ONLY

passed=0 failed=0 skipped=0

wanted()
{
	[[ ${#only[@]} == 0 || " ${only[*]} " == *" $1 "* ]]
}

# stage NAME COMMAND...: its output as it comes, its last line added to the sum.
stage()
{
	local name=$1 status=0 start=$SECONDS

	shift
	echo "# $name, $BASE"
	set -m
	("$@" < /dev/null | tee "$LOGS/stage-$name.out") &
	running=$!
	set +m
	wait "$running" || status=$?
	running=
	add_up "$name" "$status" "$start"
}

# aside NAME COMMAND...: a stage that leaves a processor idle now and then, so others go on
# beside it; its output comes when "join" has waited for it.
declare -A beside=()
aside()
{
	local name=$1

	shift
	say "$name: beginning, beside what follows"
	set -m
	(timed "$name" "$@" < /dev/null > "$LOGS/stage-$name.out" 2>&1) &
	beside[$name]="$! $SECONDS"
	set +m
}

join()
{
	local name pid start status

	for name in "${!beside[@]}"; do
		[[ $name != fetch ]] || continue
		read -r pid start <<< "${beside[$name]}"
		status=0
		while kill -0 "$pid" 2>/dev/null; do
			sleep 0.2
		done
		wait "$pid" || status=$?
		unset "beside[$name]"
		echo "# $name, $BASE"
		grep -v '^lab: ' "$LOGS/stage-$name.out" || :
		add_up "$name" "$status" "$start"
	done
}

stop_beside()
{
	local name pid

	for name in "${!beside[@]}"; do
		read -r pid _ <<< "${beside[$name]}"
		kill -TERM -- "-$pid" 2>/dev/null || :
	done
}
trap 'stop_beside; cleanup' EXIT

# add_up NAME STATUS START: what the output of a stage says of how many passed
add_up()
{
	local name=$1 status=$2 sum

	sum=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$LOGS/stage-$name.out" | tail -n 1) || sum=
	if [[ -z $sum ]]; then
		echo "not ok - $name, $BASE: ended with status $status and no result"
		failed=$((failed + 1))
	elif [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+) ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
		if [[ $sum == '0 passed, 0 failed, 0 skipped' ]]; then
			echo "not ok - $name, $BASE: nothing was tested"
			failed=$((failed + 1))
		elif ((status && BASH_REMATCH[2] == 0)); then
			echo "not ok - $name, $BASE: nothing failed, but it ended with status $status"
			failed=$((failed + 1))
		fi
	fi
	echo "# $name, $BASE: $((SECONDS - $3)) s"
}

build()
{
	timed "build $BASE" build_programs "$@" || {
		echo "not ok - build, $BASE; again: make build BASE=$BASE"
		failed=$((failed + 1))
		return 1
	}
}

# guests [NAME]...: of the tests and groups that are asked for, those among NAME
guests()
{
	stage guests "$TOP/lab/vmtests.sh" "$BASE" "$KERNELS/patched" "$programs" "$@"
}

# What is the same for all bases runs with the first.
test_lab()
{
	if wanted lab; then
		aside lab "$TOP/lab/selftest.sh" "$BASE"
	fi
	if wanted spin; then
		aside spin "$TOP/lab/spin.sh"
	fi
	once=
}

test_all()
{
	local word names=()

	for word in ${only[@]+"${only[@]}"}; do
		[[ " $stages " == *" $word "* ]] || names+=("$word")
	done
	if wanted lab || ((${#names[@]})); then
		build stock patched || return 0
	fi
	[[ -z $once ]] || test_lab
	if wanted static; then
		stage static "$TOP/lab/check.sh" "$BASE"
	fi
	join
	if [[ ${#only[@]} == 0 || ${#names[@]} != 0 ]]; then
		guests ${names[@]+"${names[@]}"}
	fi
}

test_static()
{
	if wanted static; then
		CHECK="checkpatch sparse kvm" stage static "$TOP/lab/check.sh" "$BASE"
		timed "selftests $BASE" "$TOP/lab/selftests.sh" "$BASE" > /dev/null || {
			echo "not ok - selftests, $BASE; again: make selftests BASE=$BASE"
			failed=$((failed + 1))
		}
	fi
}

# test_and_tidy COMMAND: what was not there before COMMAND is not there after it, unless
# it is needed to look into what failed, or somebody has begun to edit it.
test_and_tidy()
{
	local dir made=() before=$failed

	for dir in "$TREE" "$OUT/check"; do
		[[ -e $dir ]] || made+=("$dir")
	done
	"$1"
	((failed == before)) || return 0
	for dir in ${made[@]+"${made[@]}"}; do
		if [[ $dir == "$TREE" && -d $dir ]] && edited "$dir"; then
			say "$dir has edits, and stays"
		else
			rm -rf -- "$dir"
		fi
	done
}

# Each step of more than a few seconds, in order, and the rest together
print_steps()
{
	echo "# seconds that the steps took, by the clock and of the processors' time:"
	awk -F '\t' -v all="$SECONDS" '
		function row(name, wall, cpu) { printf "# %6d %6d  %s\n", wall, cpu, name }
		{ cpu = $4 - $3; sum += cpu }
		cpu < 5 && $2 < 5 { short++; short_wall += $2; short_cpu += cpu; next }
		{ row($1, $2, cpu) }
		END {
			if (short)
				row(short " shorter steps", short_wall, short_cpu)
			row("all (guests run " '"$JOBS"' " at a time)", all, sum)
		}' "$LAB_STEPS"
}

stages="lab spin static"
for word in ${only[@]+"${only[@]}"}; do
	known "$word" "$(tr ' ' '\n' <<< "$stages"; test_words)"
done
mapfile -t all < <(bases | tac)
once=1
case ${1:-} in
''|all)	list=("${all[@]}") ;;
*)	list=("$1") ;;
esac
for base in "${list[@]}"; do
	load_base "$base"
done
load_base "${list[0]}"
"$TOP/lab/deps.sh" test
lock "$BUILD/.lock-test"
export LAB_STEPS=$BUILD/steps
: > "$LAB_STEPS"

# The sources of the others come while the first is built, which leaves a processor idle
# now and then.  Whatever goes wrong with that is said when it is their turn.
if ((${#list[@]} > 1 && ! ${#only[@]})); then
	set -m
	(for base in "${list[@]:1}"; do
		"$TOP/lab/fetch.sh" "$base" || :
	done > "$BUILD/fetch.log" 2>&1 < /dev/null) &
	beside[fetch]="$! $SECONDS"
	set +m
fi
for base in "${list[@]}"; do
	load_base "$base"
	if [[ -n ${1:-} || $base == "${list[0]}" ]]; then
		tests=test_all
	else
		tests=test_static
	fi
	# With a base named, trees stay for the next time
	if [[ ${1:-all} == all ]]; then
		test_and_tidy "$tests"
	else
		"$tests"
	fi
done

print_steps
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
