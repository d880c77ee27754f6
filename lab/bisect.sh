#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: bisect.sh BASE
#
# Show that a bisection may stop at any patch of the series: build each one that the
# kernel is made of, the odd configurations of lab/check.sh too, boot it, and run what
# there is to run: vfio_proof, whose rows may become what lab/run.expect promises from
# one patch to the next but never cease to be, and the tests of lab/tests.list that are
# in the group "bisect".  A patch that leaves a splat where there was none fails.
# Prints a line a patch, with the rows that it changed.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

readonly PROGRAM=vfio_proof

# On the kernel in $dir, with results in $log.*
boot()
{
	local status=0

	progress "booting $1" "$log.out" "$VMTEST" -c 2 -m 2048 -t 600 -l "$log.console" \
		"$dir" -- "$programs/$PROGRAM" || status=$?
	tr -d '\r' < "$log.out" | grep -P '^[a-z0-9_]+\t' | grep -v '_us	' | sort > "$log.facts" || :
	case $status in
	0|125)	;;
	*)	echo "vfio_proof: status $status" >> "$log.why" ;;
	esac
	# The lines of splats, without their time
	sed -nE 's/^[0-9]+:\[ *[0-9]+\.[0-9]+\](\[[^]]*\])? //p' "$log.out" |
		{ grep -oE '(WARNING|BUG|possible)[^+]*' || :; } |
		sed -E 's/(CPU|PID): ?[0-9]+//g; s/:[0-9]+ / /' | sort -u > "$log.splats"
}

# kept FACTS: the rows that are as promised, each with its value
kept()
{
	local name promised value

	while IFS='|' read -r name _ promised; do
		name=$(trim "$name")
		[[ -n $name && $name != '#'* ]] || continue
		value=$(awk -F '\t' -v name="$name" '$1 == name { print $2 }' "$1")
		if grep -qxE -- "$(trim "$promised")" <<< "$value"; then
			echo "$name"
		fi
	done < "$TOP/lab/run.expect" | sort
}

# compare BEFORE: what got worse since then, to $log.why
compare()
{
	comm -23 <(kept "$1.facts") <(kept "$log.facts") | while read -r name; do
		echo "$name was as promised, and is now: $(grep "^$name	" "$log.facts" | cut -f 2)"
	done >> "$log.why"
	comm -13 "$1.splats" "$log.splats" | sed 's/^/a splat: /' >> "$log.why"
}

changes()
{
	join -t $'\t' "$1.facts" "$log.facts" |
		awk -F '\t' '$2 != $3 { printf "#     %s: %s -> %s\n", $1, $2, $3 }'
	comm -23 "$1.splats" "$log.splats" | sed 's/^/#     no more: /'
}

run_tests()
{
	grep -E "^[a-z-]+ \|[^|]*\<bisect\>[^|]*@$BASE\>" "$TOP/lab/tests.list" >/dev/null || return 0
	"$TOP/lab/vmtests.sh" "$BASE" "$dir" "$programs" bisect > "$log.tests" || {
		grep '^not ok' "$log.tests" || tail -n 1 "$log.tests"
	} >> "$log.why"
}

# Does the kernel come out different?
builds()
{
	! git -C "$TREE" diff --quiet "$1^" "$1" -- . ':!Documentation' ':!tools' ':!MAINTAINERS'
}

try()
{
	local name=$1 commit=$2 before=$3

	rm -f "$log".*
	: > "$log.why"
	git -C "$clone" checkout -q -f --detach "$commit"
	if ! progress "building $name" "$log.build" compile_clone "$clone"; then
		reason "$log.build" > "$log.why"
		return
	fi
	publish_clone "$clone" "$dir"
	boot "$name"
	run_tests
	[[ -z $before ]] || compare "$before"
}

"$TOP/lab/deps.sh" bisect
status=0
# BOOT=1: no odd configurations
[[ -n ${BOOT:-} ]] || CHECK="few cdev nommu allmod" "$TOP/lab/check.sh" "$BASE" || status=1
build_programs patched
use_ccache
lock "$OUT/.lock-bisect"
clone=$OUT/bisect-tree
dir=$OUT/bisect-kernel
need_space "$OUT" 3000 "a kernel tree"
progress "cloning the patched tree" "$LOGS/bisect-clone.log" clone_patched "$clone" HEAD ||
	die "cannot clone $TREE: $(reason "$LOGS/bisect-clone.log")"

log=$LOGS/bisect-0000
try "the base" base ''
[[ ! -s $log.why ]] || die "the base itself: $(head -n 1 "$log.why")"
# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"
ktap_begin
n=0
while read -r commit; do
	n=$((n + 1))
	builds "$commit" || continue
	before=$log
	log=$LOGS/bisect-$(printf '%04d' $n)
	title="$(printf '%04d' $n) $(git -C "$TREE" show -s --format=%s "$commit")"
	try "$title" "$commit" "$before"
	if [[ -s $log.why ]]; then
		result fail "boot: $title" "$log.why"
		[[ -f $log.facts ]] || log=$before
	else
		result ok "boot: $title"
		changes "$before"
	fi
done < <(git -C "$TREE" rev-list --reverse base..HEAD)
rm -rf "$clone" "$dir"
ktap_end || status=1
((status == 0))
