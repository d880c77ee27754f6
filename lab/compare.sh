#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: compare.sh BASE WITH
#
# How the patches of one kernel differ from those of another, by git range-diff: "-" is of
# WITH, "+" of BASE.  SET=NAME: those of one set.  The trees are compared as they are, with
# edits that are committed.

. "$(dirname "$0")/lib.sh"
set=${SET:-}
unset SET
with=${2:-}
load_base "${1:-}"
[[ -n $with ]] || die "with which kernel? give WITH=, one of: $(bases | grep -vxF "$BASE" | paste -s -d ' ')"
[[ $with != "$BASE" ]] || die "WITH=$with: that is BASE itself"

# range_of BASE: sets $from and $to
range_of()
{
	load_base "$1"
	"$TOP/lab/compose.sh" "$BASE" > /dev/null
	if [[ -n $set ]]; then
		the_set "$set"
	else
		from=$(git -C "$TREE" rev-parse 'base^{commit}') to=$(git -C "$TREE" rev-parse HEAD)
	fi
}

range_of "$with"
their_tree=$TREE theirs=$from..$to
range_of "$1"
# The one is read from the other's repository, and nothing is written
GIT_ALTERNATE_OBJECT_DIRECTORIES=$their_tree/.git/objects \
	git -C "$TREE" --no-pager range-diff --no-color "$theirs" "$from..$to"
