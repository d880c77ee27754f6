#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: vmtests.sh BASE KERNEL_DIR PROGRAM_DIR [NAME]...
#
# Run the tests of lab/tests.list (those with one of the names or groups, or all) on
# a kernel, as many guests at a time as there are processors, and print a line a test
# and their sum.  What a guest printed stays in build/BASE/logs.  A failure by
# a bug that lab/expected.list has, and that was fixed later, is not counted as one.  NAME:WORD,... runs the fixtures
# and tests with these names alone, if the harness of the kernel can.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
[[ $# -ge 3 ]] || die "usage: vmtests.sh BASE KERNEL_DIR PROGRAM_DIR [NAME]..."
kernel=$(absolute "$2")
programs=$(absolute "$3")
shift 3
only=()
declare -A parts=()
for word; do
	only+=("${word%%:*}")
	[[ $word == *:* ]] || continue
	for part in $(tr , ' ' <<< "${word#*:}"); do
		parts[${word%%:*}]+=" -f $part -t $part"
	done
done
label=${kernel##*/}
expected=$TOP/lab/expected.list

# A line that is not understood would let a test fail unseen, or fail it for nothing.
bad=$(awk -F '|' '!/^#/ && NF && (NF != 4 || /\|[[:space:]]*(\||$)/ || /^[[:space:]]*\|/) { print FNR; exit }' \
	"$expected")
[[ -z $bad ]] || die "lab/expected.list:$bad: not 'fixed in | name | test | reason'"

# Is the test, with this name and these groups, for this base and asked for?
selected()
{
	local word

	[[ " $1 " != *" @"* || " $1 " == *" @$KERNEL "* ]] || return 1
	((${#only[@]})) || return 0
	for word in "${only[@]}"; do
		[[ " $1 " != *" $word "* ]] || return 0
	done
	return 1
}

# Sum up one guest's KTAP, given the status that vmtest.sh ended with.
sum()
{
	tr -d '\r' < "$1" | awk -v test="$2" -v status="$3" -v base="$KERNEL" \
		-v list="$expected" '
		function older(a, b,	x, y)
		{
			split(a, x, ".")
			split(b, y, ".")
			return x[1] + 0 < y[1] + 0 || (x[1] == y[1] && x[2] + 0 < y[2] + 0)
		}
		function result(word, text,	reason)
		{
			split(text, words, " ")
			found[words[1]]
			if (text in expected && word == "not ok") {
				word = "skip"
				text = text " # SKIP " expected[text]
				failed_as_expected++
			} else if (text in expected && word == "ok") {
				word = "not ok"
				text = text " (passes, lab/expected.list says it fails)"
			}
			# The reason is what follows "# SKIP", in capitals or not
			reason = ""
			if (word == "skip" && match(text, / *# *[Ss][Kk][Ii][Pp] */)) {
				reason = substr(text, RSTART + RLENGTH)
				text = substr(text, 1, RSTART - 1)
			}
			printf "%s\t%s: %s\t%s\n", word, test, text, reason
			count[word]++
		}
		BEGIN {
			while ((getline line < list) > 0) {
				gsub(/^[ \t]+|[ \t]+$/, "", line)
				split(line, field, /[ \t]*\|[ \t]*/)
				if (line !~ /^#/ && older(base, field[1]) && field[2] == test)
					expected[field[3]] = "fixed in " field[1] ": " field[4]
			}
		}
		/^# *RUN / { current = last = $3; next }
		/^# *(OK|FAIL) / { current = "" }
		/^1\.\.[0-9]+/ && !planned { planned = substr($1, 4) + 0; has_plan = 1 }
		/^(not )?ok [0-9]+/ {
			word = $1 == "not" ? "not ok" : "ok"
			skip = tolower($0) ~ /# *skip/
			sub(/^(not )?ok [0-9]+ *-? */, "")
			# Old harnesses do not name a test that skips.
			if (/^#/)
				$0 = last " " $0
			seen++
			if (skip)
				result("skip", $0)
			else
				result(word, $0)
		}
		END {
			why[124] = "the guest did not end in time"
			why[125] = "the kernel complained"
			why[126] = "the guest died"
			why[127] = "the guest could not be started"
			if (status in why)
				result("not ok", (current ? current " (" : "(") why[status] ")")
			else if (!seen && !has_plan)
				result(status == 0 ? "ok" : status == 4 ? "skip" : "not ok", "status " status)
			else if (seen < planned && count["not ok"] == 0)
				result("not ok", "only " seen " of " planned " tests were run")
			else if (status != 0 && status != 4 && count["not ok"] == 0 && !failed_as_expected)
				result("not ok", "all tests passed, but the status is " status)
			for (name in expected)
				if (planned && seen == planned && !(name in found))
					result("not ok", name " (lab/expected.list has it, and there is no such test)")
		}'
}

run_one()
{
	local name=$1 cpus=$2 seconds=$3 options=${4//@MODULES@/$programs/modules-$label} command=$5 status=0 try out=$LOGS/vm-$label-$1

	# shellcheck disable=SC2086	# words on purpose
	set -- $command ${parts[$name]:-}
	# Another chance if it was QEMU's fault
	for try in 1 2; do
		status=0
		# shellcheck disable=SC2086
		timed "guest $BASE: $name" "$VMTEST" -c "$cpus" -m 2048 -t "$seconds" -l "$out.log" $options \
			"$kernel" -- "$programs/$1" "${@:2}" > "$out.out" 2> "$out.err" < /dev/null || status=$?
		((status == 126 && try == 1)) || break
		say "$name on $label: QEMU failed, trying again"
	done
	sum "$out.out" "$name" "$status" > "$out.sum"
	echo "$status" > "$out.status"
}

report()
{
	local name=$1 out=$LOGS/vm-$label-$1 before=$failed word text why

	if [[ ! -f $out.sum ]]; then
		result fail "$name: no result"
	else
		while IFS=$'\t' read -r word text why; do
			result "$word" "$text" <(echo "$why")
		done < "$out.sum"
	fi
	if ((failed > before)); then
		echo "# again: $again$name"
		echo "# the guest printed (all of it: $out.out, console: $out.log):"
		grep -vE '^ok |^#  *(RUN|OK) ' "$out.out" | tail -n 30 | sed 's/^/#   /' || :
		sed 's/^/#   /' "$out.err" | head -n 60
	fi
}

# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"
ended=0 next_word=$((SECONDS + 30))
declare -A pids=() started=()
again="make test BASE=$BASE ONLY="
[[ $label == patched ]] || again="lab/vmtests.sh $BASE $kernel $programs "

stop_all()
{
	local pid

	for pid in "${!pids[@]}"; do
		kill -TERM -- "-$pid" 2>/dev/null || :
	done
	wait
}
trap 'stop_all; cleanup' EXIT

# Tests that have ended, of those that the guest says there are
how_far()
{
	tr -d '\r' < "$LOGS/vm-$label-$1.out" 2>/dev/null | awk '
		/^1\.\.[0-9]+/ && !n { n = substr($1, 4) }
		/^(not )?ok [0-9]+/ { done++ }
		END { if (n) printf ", %d of %d tests", done, n }'
}

# Waits for one to end, and says meanwhile how far they are.
reap()
{
	local pid

	while :; do
		for pid in "${!pids[@]}"; do
			[[ ! -e $LOGS/vm-$label-${pids[$pid]}.status ]] || break 2
			kill -0 "$pid" 2>/dev/null || break 2
		done
		sleep 0.5
		((SECONDS >= next_word)) || continue
		next_word=$((SECONDS + 30))
		for pid in "${!pids[@]}"; do
			say "${pids[$pid]} on $label: $((SECONDS - started[$pid])) s$(how_far "${pids[$pid]}")"
		done
	done
	wait "$pid" || :
	ended=$((ended + 1))
	say "${pids[$pid]} on $label: ended, $ended of ${#chosen[@]} guests"
	report "${pids[$pid]}"
	unset "pids[$pid]" "started[$pid]"
}

# Those that take longest first, so that none is left alone at the end
mapfile -t chosen < <(
	while IFS='|' read -r name groups cpus seconds rest; do
		name=$(trim "$name")
		[[ -n $name && $name != '#'* ]] || continue
		selected "$name $(trim "$groups")" || continue
		echo "$name|$(trim "$cpus")|$(trim "$seconds")|$rest"
	done < "$TOP/lab/tests.list" | sort -s -t '|' -k 3,3nr)
for line in ${chosen[@]+"${chosen[@]}"}; do
	rm -f "$LOGS/vm-$label-${line%%|*}".*
done
ktap_begin
for line in ${chosen[@]+"${chosen[@]}"}; do
	IFS='|' read -r name cpus seconds options command <<< "$line"
	while ((${#pids[@]} >= JOBS)); do
		reap
	done
	say "$name on $label: at most $seconds s"
	set -m
	run_one "$name" "$cpus" "$seconds" "$options" "$command" &
	pids[$!]=$name
	started[$!]=$SECONDS
	set +m
done
while ((${#pids[@]})); do
	reap
done

((passed + failed + skipped)) || die "no test is called '${only[*]}'; see lab/tests.list"
ktap_end
