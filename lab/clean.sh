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
	local dir=$1 fd

	while [[ -e $dir ]]; do
		is_ours "$dir" || die "$dir was not made by the lab, and stays as it is"
		{ exec {fd}>> "$dir/$MARK"; } 2>/dev/null || die "cannot write to $dir"
		if ! flock -n "$fd"; then
			say "another command is at work in $dir; waiting for it"
			flock "$fd" || die "cannot lock $dir/$MARK"
		fi
		# Somebody else may have removed it meanwhile
		[[ ! $dir/$MARK -ef /proc/self/fd/$fd ]] || return 0
		exec {fd}>&-
	done
	return 1
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
	if [[ -L $1 ]]; then
		rm "$1"
	else
		rmdir "$1" || die "$1 is empty, and cannot be removed"
	fi
}

# What is not written back, before anything is removed
look_at_build()
{
	local out

	for out in "$BUILD"/*/; do
		out=${out%/}
		[[ -f $out/$MARK ]] || continue
		if [[ -d $out/tree && -z ${FORCE:-} ]] && edited "$out/tree"; then
			die "$out/tree has edits ($edit); make writeback saves commits of the series, FORCE=1 drops all"
		fi
		[[ ! -d $out/series ]] || untouched "$out/series"
		[[ ! -d $out/mail ]] || untouched "$out/mail"
	done
}

# The sources among what is in the cache
sources()
{
	find "$CACHE/src" -mindepth 1 -maxdepth 1 -type d \( -name '*-debian-*' -o -name '*-src-*' \) 2>/dev/null
}

look_at_cache()
{
	local tree

	[[ -z ${FORCE:-} ]] || return 0
	while read -r tree; do
		[[ $(git -C "$tree" rev-list --all --count) == 1 &&
		   $(git -C "$tree" status --porcelain --ignored | grep -cvE '^!! obj-(debug|release)/$') == 0 ]] ||
			die "$tree has edits; save them elsewhere, FORCE=1 drops them"
	done < <(sources)
}

clean_build()
{
	local out

	for out in "$BUILD"/*/; do
		out=${out%/}
		[[ -f $out/$MARK ]] || continue
		rm -rf "$out"/{tree,stock,patched,selftests,logs,series,mail,check,bench,release} \
			"$out"/{proof,proof-tree,bisect-tree,bisect-kernel} \
			"$out"/{lock-*,.lock-*,.tmp.*,.old-*,.sums-*}
		finish "$out"
	done
	rm -f "$BUILD"/{deps.log,fetch.log,steps,steps.*,.lock-test}
	finish "$BUILD"
}

clean_cache()
{
	local tree

	while read -r tree; do
		rm -rf "$tree"
	done < <(sources)
	rm -rf "${CACHE:?}"/src/.tmp.* "${CACHE:?}"/{ccache,checks,lock-src*,.tmp.*}
	[[ ! -d $CACHE/src ]] || finish "$CACHE/src"
	finish "$CACHE"
}

CACHE=$(absolute "$CACHE")
BUILD=$(absolute "$BUILD")
apart
build=0 cache=0
! own "$BUILD" || build=1
[[ ${1:-} != all ]] || ! own "$CACHE" || cache=1
((!build)) || look_at_build
((!cache)) || look_at_cache
((!build)) || clean_build
((!cache)) || clean_cache
