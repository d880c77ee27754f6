#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: clean.sh [all]
#
# Remove what the lab has made in build/, with "all" also what it keeps in the cache, and
# nothing else: not what somebody else has put there, nor edits and commits that were not
# written back, unless FORCE=1.  Waits for commands that are at work there.

. "$(dirname "$0")/lib.sh"
[[ $# == 0 || $* == all ]] || die "usage: clean.sh [all]"

# own DIR: waits until nobody works there; fails if there is no such folder
own()
{
	local dir=$1

	[[ -e $dir ]] || return 1
	is_ours "$dir" || die "$dir was not made by the lab, and stays as it is"
	lock "$dir/$MARK"
}

# A folder stays, with its mark, as long as there is anything in it that the lab did not make.
finish()
{
	local left

	left=$(cd "$1" && find . -mindepth 1 -maxdepth 1 ! -name "$MARK" | sed 's,^\./,,' | sort | paste -s -d ' ')
	if [[ -n $left ]]; then
		say "$1 stays, as the lab did not make what is in it: $left"
		return
	fi
	rm -f "$1/$MARK"
	rmdir "$1"
}

clean_build()
{
	local out tree

	own "$BUILD" || return 0
	for tree in "$BUILD"/*/tree; do
		if [[ -d $tree && -z ${FORCE:-} ]] && edited "$tree"; then
			die "$tree has edits; make writeback saves them, FORCE=1 drops them"
		fi
	done
	for out in "$BUILD"/*/series "$BUILD"/*/mail; do
		[[ ! -d $out ]] || untouched "$out"
	done
	for out in "$BUILD"/*/; do
		out=${out%/}
		[[ -d $out/logs ]] || continue
		rm -rf "$out"/{tree,stock,patched,selftests,logs,series,mail,check,bench,release} \
			"$out"/{proof,proof-tree,bisect-tree,bisect-kernel} \
			"$out"/{lock-*,.lock-*,.tmp.*,.old-*,.sums-*}
		finish "$out"
	done
	rm -f "$BUILD"/{deps.log,fetch.log,steps,steps.*}
	finish "$BUILD"
}

clean_cache()
{
	local tree

	own "$CACHE" || return 0
	for tree in "$CACHE"/src/*/; do
		if [[ -d $tree/.git && -z ${FORCE:-} ]] &&
		   { changed "$tree" || [[ -n $(git -C "$tree" rev-list -n 1 --all --not base) ]]; }; then
			die "${tree%/} has edits; save them elsewhere, FORCE=1 drops them"
		fi
	done
	for tree in "$CACHE"/src/*/; do
		[[ ! -d $tree/.git ]] || rm -rf "${tree%/}"
	done
	rm -rf "${CACHE:?}"/src/.tmp.* "${CACHE:?}"/{ccache,checks,lock-src*,.tmp.*}
	[[ ! -d $CACHE/src ]] || finish "$CACHE/src"
	finish "$CACHE"
}

CACHE=$(absolute "$CACHE")
BUILD=$(absolute "$BUILD")
clean_build
if [[ ${1:-} == all ]]; then
	clean_cache
fi
