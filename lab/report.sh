#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: report.sh BASE
#
# A report for stable@ of a bug that only this kernel has: mail/report/BASE, with what its
# program prints on the stock kernel, and on that with one set of the series alone.
# Written to build/BASE/report.mbox, for git send-email.  Fails if the program does not
# fail on the one and pass on the other.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
text=$TOP/mail/report/$BASE
[[ -f $text ]] || die "there is nothing to report of $BASE alone; mail/report has: $(cd "$TOP/mail/report" && printf '%s\n' [0-9]* | paste -s -d ' ')"
work=''

said()
{
	sed -n "s/^@$1 //p" "$text"
}

# run KERNEL_DIR NAME: what it prints is in $work/NAME; its status
run()
{
	local log=$LOGS/report-$2 status=0

	progress "running ${program%.c} on $2" "$log.out" "$VMTEST" -c 2 -m 2048 -t 600 -l "$log.log" \
		-b "$(said device)" "$1" -- "$work/program" || status=$?
	((status < 124)) || die "the $2 guest did not run the program; its console is in $log.log"
	tr -d '\r' < "$log.out" | grep '^[a-z]*, memory ' > "$work/$2" ||
		die "the program said nothing on $2; see $log.out"
	return "$status"
}

program=$(said program) set=$(said set)
"$TOP/lab/deps.sh" run
"$TOP/lab/build.sh" "$BASE" stock > /dev/null
"$TOP/lab/build.sh" "$BASE" patched > /dev/null
lock "$OUT/.lock-report"
scratch work "$OUT"
use_ccache
$CC -Wall -O2 -static -o "$work/program" "$TOP/mail/report/$program" 2> "$LOGS/report-cc.log" ||
	die "mail/report/$program does not compile: $(reason "$LOGS/report-cc.log")"
the_set "$set"
clone=$OUT/report-tree
progress "cloning the patched tree" "$LOGS/report-clone.log" clone_patched "$clone" base ||
	die "cannot clone $TREE: $(reason "$LOGS/report-clone.log")"
git -C "$clone" -c user.name=lab -c user.email=lab@localhost cherry-pick "$from..$to" &> "$LOGS/report-pick.log" ||
	die "set $set of $BASE does not stand alone: $(reason "$LOGS/report-pick.log")"
progress "building set $set alone" "$LOGS/report-build.log" compile_clone "$clone" ||
	die "set $set of $BASE does not build alone: $(reason "$LOGS/report-build.log")"
publish_clone "$clone" "$work/kernel"
rm -rf "$clone"

! run "$KERNELS/stock" stock || die "$program passes on stock $BASE: there is nothing to report"
run "$work/kernel" cured || die "$program fails with set $set, too: $(tail -n 1 "$work/cured")"
version=$(guest_version "$LOGS/report-stock.log")
shortstat="$(git -C "$TREE" rev-list --count "$from..$to") patches,$(git -C "$TREE" diff --shortstat "$from" "$to" | cut -d , -f 2-)"
{
	echo 'From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001'
	sed '/^#/d; /^@\(program\|device\|set\) /d' "$text" | sed '/./,$!d' | while IFS= read -r line; do
		case $line in
		@stock|@cured)	sed 's/^/    /' "$work/${line#@}" ;;
		@source)	cat "$TOP/mail/report/$program" ;;
		*)		line=${line//%VERSION%/$version}
				echo "${line//%SHORTSTAT%/$shortstat}" ;;
		esac
	done
} > "$work/mbox"
mv "$work/mbox" "$OUT/report.mbox"
echo "$OUT/report.mbox; to send it: git send-email $OUT/report.mbox"
