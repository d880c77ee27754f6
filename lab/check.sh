#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Static checks of a series: checkpatch, a build of each patch on x86-64 and, for
# those that touch it, of the platform and fsl-mc drivers on arm64, sparse,
# coccicheck, kernel-doc, Sphinx; and shellcheck of this project's own scripts.  What
# the tools say about the base is not the series' business: only what is new fails.
# Each is a file in lab/checks/; this has what they share, runs them, and reports.
#
# Usage: lab/check.sh BASE [TREE]
#	 TREE: a git tree with the series applied on top of the tag "base",
#	 instead of the one that lab/compose.sh makes
#	 CHECK="shellcheck guarantees checkpatch kernel-doc sphinx x86-64 arm64 kvm selftests sparse
#	 coccicheck": which of them (default: all).  Only if named: builds of each patch
#	 with "few", nothing that can be left out, and vfio built in; "cdev", no groups;
#	 "nommu", RISC-V without MMU; "allmod", drivers/vfio of allmodconfig
#
# What passed is remembered in the cache, by all that it depends on: the contents that were
# checked, the version of the tools, what was asked of them, and how it is done here.
# FRESH=1 does not look there.

# Functions are called by way of progress, which shellcheck does not see:
# shellcheck disable=SC2317,SC2119,SC2120
# shellcheck source=lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_base "${1:-}"
# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"

ALL="shellcheck guarantees checkpatch kernel-doc sphinx x86-64 arm64 kvm selftests sparse coccicheck"
ODD="few cdev nommu allmod"
CHECK=${CHECK:-$ALL}
for name in $CHECK; do
	[[ " $ALL $ODD " == *" $name "* ]] || die "CHECK: unknown check '$name'; there are: $ALL $ODD"
done

# report STATUS DESCRIPTION [FILE]: a result, with the command for it and no paths of ours
report()
{
	local name=${2%%:*} why=

	if (($1)) && [[ -n ${3:-} ]]; then
		why=$LOGS/check.why
		sed "s,${SRC:-/nowhere}/,,g" "$3" > "$why"
	fi
	result "$1" "$2" "$why"
	((!$1)) || echo "# again: CHECK=${name#build } lab/check.sh $BASE"
}

wanted()
{
	[[ " $CHECK " == *" $1 "* ]]
}

# What the files in lab/checks/ have:
#   check_NAME	prints a line by report() for everything it looks at
#   needs_NAME	a program that it calls, and the package with it
for file in "$TOP"/lab/checks/*.sh; do
	# shellcheck source=/dev/null
	. "$file"
done

need()
{
	local name tool package

	for name in $CHECK; do
		name=needs_${name//-/_}
		echo "${!name:-}"
	done | cat - <(printf '%s %s\n' perl perl git git gcc gcc make make flex flex bison bison nm binutils) |
	while read -r tool package; do
		[[ -z $tool ]] || command -v "$tool" >/dev/null || echo "$package"
	done | paste -s -d ' '
}
missing=$(need)
[[ -z $missing ]] || die "tools are missing; run: apt-get install $missing"

# run NAME
run()
{
	wanted "$1" || return 0
	timed "static $BASE: $1" "check_${1//-/_}"
}

finish()
{
	ktap_end
	exit
}

ktap_begin

run shellcheck
run guarantees
tr -s ' ' '\n' <<< "$CHECK" | grep -vxEq 'shellcheck|guarantees|' || finish

#
# A clone of the composed tree to check patches out in.  Objects are kept from one
# patch to the next and from run to run, so that make compiles only what differs.
#
WORK=$OUT/check
lock "$OUT/lock-check"
need_space "$OUT" 3000 "checking"
PASSED=$CACHE/checks
mkdir -p "$WORK" "$PASSED"

if [[ -n ${2:-} ]]; then
	tree=$(absolute "$2")
else
	tree=$("$TOP/lab/compose.sh" "$BASE") || exit 1
	tree=$(tail -n 1 <<< "$tree")
fi
tip=$(git -C "$tree" rev-parse --verify -q HEAD) || die "$tree: not a git tree"
base=$(git -C "$tree" rev-parse --verify -q 'base^{commit}') || die "$tree has no tag 'base'"

# The objects are those of the tree; a clone of a tree that is gone is made anew.
SRC=$WORK/src
clone()
{
	local objects

	objects=$(git -C "$tree" rev-parse --path-format=absolute --git-path objects) || return 1
	if [[ $(cat "$SRC/.git/objects/info/alternates" 2>/dev/null) != "$objects" ]]; then
		rm -rf "$SRC" "$WORK"/obj-*
		git init -q "$SRC" || return 1
		git -C "$SRC" config gc.auto 0
		echo "$objects" > "$SRC/.git/objects/info/alternates"
	fi
	# An interrupted run may have left any of these.
	rm -f "$SRC"/.git/*.lock
	git -C "$SRC" checkout -q -f --detach "$base" || return 1
	git -C "$SRC" clean -qfdx
}
if [[ $CHECK == checkpatch ]]; then
	# Which looks at the tree as it is
	SRC=$tree
else
	progress "preparing the tree to check" "$LOGS/check-clone.log" clone ||
		die "cannot copy $tree: $(reason "$LOGS/check-clone.log")"
fi

mapfile -t commits < <(git -C "$SRC" rev-list --reverse "$base..$tip")
((${#commits[@]})) || die "$tree has no patch on top of its base"
mapfile -t changed < <(git -C "$SRC" diff --name-only --diff-filter=AM "$base" "$tip")

checkout()
{
	[[ $SRC != "$tree" ]] || return 0
	git -C "$SRC" checkout -q -f --detach "$1" || die "cannot check out $1"
}

title()
{
	git -C "$SRC" show -s --format=%s "$1"
}

number()
{
	printf '%04d' "$1"
}

#
# What passed once with the very same contents and tools need not run again.
#
TOOLS=$({
	gcc --version
	ld --version
	aarch64-linux-gnu-gcc --version 2>/dev/null || :
	riscv64-linux-gnu-gcc --version 2>/dev/null || :
	powerpc-linux-gnu-gcc --version 2>/dev/null || :
	sparse --version 2>/dev/null || :
	spatch --version 2>/dev/null || :
	perl --version
	sphinx-build --version 2>/dev/null || :
} 2>&1 | sha256sum | cut -c 1-16)

# key FUNCTIONS WORD...: a file name for what depends on these functions, on what setup
# has set, on the words, and on nothing else
key()
{
	local functions=$1

	shift
	{
		echo "$TOOLS $*"
		echo "${only_here[*]} $between ${make_args[*]} $code $compiler $defaults $vfio ${symbols//[$' \t\n']/ } $required ${others[*]}"
		# shellcheck disable=SC2086	# words on purpose
		declare -f $functions
	} | sha256sum | cut -c 1-32
}
make_args=() others=() only_here=() between='' code='' compiler='' defaults='' vfio='' symbols='' required=''

seen()
{
	[[ -z ${FRESH:-} && -f $PASSED/$1 ]]
}

remember()
{
	: > "$PASSED/$1"
}

# A warning is the same warning after its line has moved.
normalize()
{
	sed -E 's/:[0-9]+(:[0-9]+)?:/:/; s/:[0-9]+(-[0-9]+)?: /: /g; s/\.([ch]):[0-9]+ /.\1: /; s/\(see line [0-9]+\)//;
		s/ on line [0-9]+/ on line/; s/line [0-9]+/line/g; s,^(\.\./)+,,' | LC_ALL=C sort
}

# added BASE_LOG LOG: lines of LOG that are not in BASE_LOG, as often as there
added()
{
	comm -13 <(normalize < "$1") <(normalize < "$2")
}

#
# What a tool finds in the series and not in the base
#
vfio_tree()
{
	git -C "$SRC" rev-parse "$base^{tree}" "$1:drivers" "$1:include"
}

# find_in base|tip NAME FUNCTION FILTER MORE: what FUNCTION prints there of what FILTER lets
# through, in the file $found of the cache.  It depends on the functions MORE, too.
find_in()
{
	local which=$1 name=$2 function=$3 filter=$4

	found=$PASSED/$(key "$function $filter $5" "found $name" "${changed[*]}" "$(vfio_tree "${!which}")")
	[[ ! -f $found || -n ${FRESH:-} ]] || return 0
	checkout "${!which}"
	progress "checks, $name: $which" "$WORK/found.$which" "$function" || {
		reason "$WORK/found.$which" > "$log"
		return 1
	}
	"$filter" "$WORK/found.$which" > "$found.new"
	mv "$found.new" "$found"
}

# compare NAME FUNCTION FILTER MORE: what is found in the series and not in the base, to $log
compare()
{
	local name=$1 found before

	log=$LOGS/${name// /-}.log
	status=0
	rm -f "$log"
	find_in base "$@" || status=1
	before=$found
	((status)) || find_in tip "$@" || status=1
	((!status)) || return 0
	added "$before" "$found" > "$log"
	[[ ! -s $log ]] || status=1
}

run checkpatch
run kernel-doc
run sphinx
for arch in x86-64 arm64 $ODD; do
	wanted "$arch" || continue
	# Before 6.2 there is no other way to a device than by its group.
	[[ $arch != cdev || -d $SRC/drivers/iommu/iommufd ]] || continue
	timed "static $BASE: build $arch" check_builds "$arch"
done
run kvm
run selftests
run sparse
run coccicheck
finish
