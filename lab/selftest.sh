#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: selftest.sh BASE
#
# Test the lab itself: what it says and what it leaves behind when it is given
# something bad, on a copy of it with a kernel of a few lines; and vmtest.sh, with
# guests that panic, hang or complain if BASE has been built.  ONLY="NAME..." takes these
# files of lab/selftest/ alone, beside the one that makes the copy.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

work=''
scratch work "${TMPDIR:-/tmp}"
# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"

# expect WHAT STATUS PATTERN COMMAND...: it ends with STATUS ("fail": any but 0), and
# PATTERN is found in what it says.  A failure of the lab is one line of its own.
expect()
{
	local what=$1 status=$2 pattern=$3 got=0 why=

	shift 3
	"$@" > "$work/said" 2>&1 < /dev/null || got=$?
	if [[ $status == fail ]]; then
		((got != 0)) || why="ended with status 0"
		(($(grep -c 'lab: error:' "$work/said") <= 1)) || why="more than one line of error"
	elif [[ $got != "$status" ]]; then
		why="ended with status $got instead of $status"
	fi
	grep -qE -- "$pattern" "$work/said" || why="${why:+$why, and }did not say '$pattern'"
	if [[ -z $why ]]; then
		result ok "$what"
	else
		tail -n 20 "$work/said" > "$work/why"
		result fail "$what: $why" "$work/why"
	fi
}

# skip WHAT REASON
skip()
{
	result skip "$1" <(echo "$2")
}

parts="project source compose edits git mail word checks minimal apply port expected runner devices"
read -ra only <<< "${ONLY:-}"
unset ONLY
for part in ${only[@]+"${only[@]}"}; do
	known "$part" "$(tr ' ' '\n' <<< "$parts")"
done
# What is called from here is called by hand, as far as it knows
export -n LAB_SPEAKER BASE
ktap_begin
for part in $parts; do
	[[ $part == project || ${#only[@]} == 0 || " ${only[*]} " == *" $part "* ]] || continue
	# shellcheck source=/dev/null
	. "$TOP/lab/selftest/$part.sh"
done

ktap_end
