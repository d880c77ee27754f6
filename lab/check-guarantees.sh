#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which test shows which guarantee?  lab/guarantees.list says so of every test, and
# docs/guarantees.md has a table of it.  This checks that the list has all the tests and no
# others, that it names no guarantee that does not exist, that the table is true, and that no
# guarantee of the series is without something that shows it.
#
# Usage: lab/check-guarantees.sh [-u]	-u: write the table instead

set -euo pipefail
export LC_ALL=C
unset CDPATH

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DOC=$TOP/docs/guarantees.md
LIST=$TOP/lab/guarantees.list
TESTS=$TOP/linux/tools/testing/selftests/vfio
MARK='<!-- Written by lab/check-guarantees.sh'

# What is shown, or shown as well, by something other than a selftest.
other()
{
	case $1 in
	A3|B5)		echo "in-tree users, built by patch in \`lab/check.sh\`" ;;
	C1)		echo "in-tree users, built by patch in \`lab/check.sh\`; \`model/chain.pml\`" ;;
	D2)		echo "no such parameter exists; \`lab/check.sh\` builds both configurations" ;;
	D3)		echo "\`model/ranges.pml\`, \`model/chain.pml\`" ;;
	B3)		echo "the tests of A8, D7 and E11" ;;
	B4)		echo "no test: no emulated device has such a region to mmap" ;;
	A5)		echo "that other regions stay is skipped: no emulated device has one to mmap" ;;
	D8)		echo "no test: \`vfio_bench others\` and its bar in docs/bench.md" ;;
	E7)		echo "\`vfio_bench release\` and its bars in docs/bench.md" ;;
	A6|A7|E2)	echo "\`model/memory.pml\`" ;;
	E1|E4|E6|E10)	echo "\`model/chain.pml\`" ;;
	E13)		echo "\`model/chain.pml\`; lockdep, which is told of reclaim, in all tests" ;;
	G1)		echo "\`model/away.pml\`, \`model/ranges.pml\`" ;;
	esac
}

# Lines of PROGRAM TEST, as they are in the sources
tests()
{
	local file

	for file in "$TESTS"/*_test.c; do
		[[ -f $file ]] || continue
		awk -v program="$(basename "$file" .c)" '
		/^[A-Z_]*TEST[A-Z_]*\(/ {
			name = $0
			sub(/\).*/, "", name)
			with_fixture = name ~ /^TEST_F/
			sub(/^[^(]*\(/, "", name)
			split(name, args, /, */)
			print program " " (with_fixture ? args[2] : args[1])
		}
		' "$file"
	done
}

# The same, as they are in the list
listed()
{
	awk '!/^#/ && NF { print $1 " " $2 }' "$LIST"
}

# Lines of the list that are not such
malformed()
{
	awk '!/^#/ && NF && !/^[a-z0-9_]+ [a-z0-9_]+ \| (-|[A-H][0-9]+( [A-H][0-9]+)*)$/ {
		print "lab/guarantees.list:" NR ": make it \047program test | guarantees\047: " $0
	}' "$LIST"
}

# The first test whose line is elsewhere, if none is missing
misplaced()
{
	cmp -s <(tests | sort) <(listed | sort) || return 0
	paste -d '|' <(tests) <(listed) | awk -F '|' '$1 != $2 {
		print "the line of \047" $1 "\047 belongs where \047" $2 "\047 is in lab/guarantees.list"
		exit
	}'
}

# Lines of GUARANTEE PROGRAM TEST
cited()
{
	awk '!/^#/ && NF {
		for (i = 4; i <= NF; i++)
			if ($i != "-")
				print $i " " $1 " " $2
	}' "$LIST"
}

ids()
{
	grep -oE '^- \*\*[A-H][0-9]+\*\*' "$DOC" | tr -d '* -'
}

# tests_of ID: the tests that show it, by program
tests_of()
{
	local program name last='' text=''

	while read -r _ program name; do
		if [[ $program != "$last" ]]; then
			text+="${text:+; }\`$program\`: \`$name\`"
		else
			text+=", \`$name\`"
		fi
		last=$program
	done < <(grep "^$1 " "$work/all" || :)
	echo "$text"
}

table()
{
	local id how text

	echo
	echo '| | |'
	echo '|---|---|'
	for id in $(ids); do
		text=$(tests_of "$id")
		how=$(other "$id")
		text+=${how:+${text:+; }$how}
		echo "| $id | $text |"
	done
}

if [[ ! -f $LIST ]]; then
	echo "lab: error: lab/guarantees.list is missing" >&2
	exit 1
fi
new=
work=$(mktemp -d)
trap 'rm -rf "$work" ${new:+"$new"}' EXIT
cited > "$work/all"

if [[ ${1:-} == -u ]]; then
	new=$(mktemp "$DOC.XXXXXX")
	sed "\\,^$MARK,q" "$DOC" > "$new"
	table >> "$new"
	chmod --reference="$DOC" "$new"
	mv "$new" "$DOC"
	exit
fi

# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"

# none DESCRIPTION LINES: none is good
none()
{
	local status=ok

	[[ -z $2 ]] || status=fail
	result "$status" "$1" <(echo "$2")
}

ktap_begin
none "guarantees: lab/guarantees.list can be read" "$(malformed)"
none "guarantees: every test has a line in lab/guarantees.list" \
	"$(comm -23 <(tests | sort) <(listed | sort) |
		sed "s|.*|add a line to lab/guarantees.list: '& \\| ' and what it shows, or -|")"
none "guarantees: every line of it is a test's" \
	"$(comm -13 <(tests | sort) <(listed | sort) |
		sed "s|.*|take '&' out of lab/guarantees.list, or give the line its new name|")"
none "guarantees: the lines are in the order of the sources" "$(misplaced)"
none "guarantees: those that it names exist" \
	"$(awk 'NR == FNR { known[$1]; next }
		!($1 in known) {
			print "take " $1 " from \047" $2 " " $3 "\047 in lab/guarantees.list," \
				" or write it into docs/guarantees.md"
		}' <(ids) "$work/all")"
none "guarantees: each is shown by something" "$(table | grep '^| [A-H][0-9]* |  |$' || :)"
none "guarantees: the table is up to date (lab/check-guarantees.sh -u)" \
	"$(diff <(table) <(sed "1,\\,^$MARK,d" "$DOC") || :)"
ktap_end
