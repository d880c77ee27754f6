#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which test shows which guarantee?  Every test says so in the comment above it
# ("/* D3, E9: ... */"); docs/guarantees.md has a table of it, and this checks that
# the table is true, that no test names a guarantee that does not exist, and that
# no guarantee of the series is without something that shows it.
#
# Usage: lab/check-guarantees.sh [-u]	-u: write the table instead

set -euo pipefail
export LC_ALL=C
unset CDPATH

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DOC=$TOP/docs/guarantees.md
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

# Lines of GUARANTEE PROGRAM TEST
cited()
{
	local file

	for file in "$TESTS"/*_test.c; do
		[[ -f $file ]] || continue
		awk -v program="$(basename "$file" .c)" '
		# The last comment before the test, or before its helpers
		/^\/\*/ { text = ""; comment = 1 }
		comment { text = text " " $0 }
		comment && /\*\// {
			comment = 0
			said = 1
			gsub(/^[ *\/]*/, "", text)
			if (match(text, /^[A-H][0-9]+(,? *(and)? *[A-H][0-9]+)*:/))
				ids = substr(text, 1, RLENGTH)
			next
		}
		/^[A-Z_]*TEST[A-Z_]*\(/ {
			name = $0
			sub(/\).*/, "", name)
			with_fixture = name ~ /^TEST_F/
			sub(/^[^(]*\(/, "", name)
			split(name, args, /, */)
			name = with_fixture ? args[2] : args[1]
			if (!said)
				print "- " program " " name
			while (match(ids, /[A-H][0-9]+/)) {
				print substr(ids, RSTART, RLENGTH) " " program " " name
				ids = substr(ids, RSTART + RLENGTH)
			}
			ids = ""
			said = 0
		}
		' "$file"
	done
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
known=$(ids)
none "guarantees: every test says what it shows" "$(grep '^- ' "$work/all" || :)"
none "guarantees: those that tests name exist" \
	"$(grep -v '^- ' "$work/all" | grep -vwFf <(printf '%s\n' "$known") || :)"
none "guarantees: each is shown by something" "$(table | grep '^| [A-H][0-9]* |  |$' || :)"
none "guarantees: the table is up to date (lab/check-guarantees.sh -u)" \
	"$(diff <(table) <(sed "1,\\,^$MARK,d" "$DOC") || :)"
ktap_end
