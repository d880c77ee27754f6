#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: mail.sh BASE
#
# SET=NAME: have b4 write a set of the series as mail to build/BASE/mail/: a folder that git
# send-email sends as it is, with the cover letter of mail/cover/NAME, To and Cc, and the
# sender's name and sign-off as git config has them.  For the newest base it is addressed to
# mainline; for the others it is a variant for that stable tree.  V=2 is version 2, and needs
# a section in mail/changelog.  What is written has been checked: git am, checkpatch,
# addresses, and what git send-email and b4 make of it.  Nothing is sent.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/sender.sh"
load_base "${1:-}"
work='' set=${SET:-}
unset SET

version=${V:-1}
[[ $version =~ ^[1-9][0-9]*$ ]] || die "V=$version: not the number of a version"
known_set "$set"

! why=$(no_sender) || die "who sends this? $why"
newest=$(bases | tail -n 1)

#
# The cover letter
#

# The number of the patch whose subject begins with $1
patch_number()
{
	awk -v begins="$1" 'index($0, begins) == 1 { print NR; exit }' "$work/titles"
}

# The columns of the README's table that are this kernel's
proof()
{
	awk -F ' *[|] *' -v base="$BASE" '
		!/^\|/ { if (column) exit; next }
		!column && $2 == "Linux" {
			for (i = 3; i < NF; i++)
				if (index($i, base ".") == 1)
					column = i
		}
		!column || /^\|-/ { next }
		{
			gsub(/[*]/, "")
			printf "%-52s %-9s %s\n", $2, $column, $(column + 1)
			if (!$column || !$(column + 1))
				exit 1
			rows++
		}
		END { exit rows < 2 }' "$TOP/README.md" > "$work/table" ||
		die "README.md has no complete column of results for $BASE"
	cat "$work/table"
}

lock_order()
{
	git -C "$tree" show "$tip:Documentation/driver-api/vfio.rst" |
		awk '/^Lock order$/ { here = 1; next }
		     seen && /^[[:alnum:]]/ { here = 0 }
		     here && (/^  / || (seen && /^$/)) { seen = 1; print substr($0, 3) }' |
		git stripspace > "$work/table"
	[[ -s $work/table ]] || die "Documentation/driver-api/vfio.rst has no 'Lock order'"
	cat "$work/table"
}

# The figures of this kernel, or of the first that has any
bench()
{
	local from=$BASE table

	[[ -f $TOP/docs/bench/$from/table.txt ]] ||
		from=$(cd "$TOP/docs/bench" && find . -name table.txt | cut -d / -f 2 | sort -V | head -n 1)
	table=$TOP/docs/bench/$from/table.txt
	[[ -f $table ]] || die "there are no figures in docs/bench; make bench"
	echo "Instructions of the guest, counted by QEMU (-icount), in kernels without"
	echo "debugging; the floor is the bare iommu_map() or iommu_unmap() of the range."
	[[ $from == "$BASE" ]] || echo "These are of $from, as $BASE has not been measured yet."
	echo
	awk -v base="$BASE" '
		function trim(s) { gsub(/^ +| +$/, "", s); return s }
		function cell(title, row, column) {
			if (column == "-")
				return "-"
			if (!((title, row, column) in value)) {
				print "mail/bench: " FILENAME " has no \047" title "\047, " row ", " column > "/dev/stderr"
				failed = 1
				exit 1
			}
			return value[title, row, column]
		}
		NR == FNR {
			if (/^$/ || !/^ /) {
				title = $0
				heads = 0
			} else if (!heads) {
				heads = split(trim($0), head, /  +/)
			} else {
				n = split(trim($0), part, /  +/)
				for (i = 2; i <= n && i <= heads; i++)
					value[title, part[1], head[i]] = part[i]
			}
			next
		}
		/^(#|$)/ { next }
		{
			n = split($0, field, /[|]/)
			if (field[5] ~ /@/ && (" " field[5] " ") !~ ("@" base " "))
				next
			if (split(trim(field[4]), column, / *, */) != 3)
				split("stock,patched,floor", column, /,/)
			if (!printed++)
				printf "%-32s %14s %12s %12s\n", "", "stock", "with series", "floor"
			printf "%-32s %14s %12s %12s\n", trim(field[3]),
				cell(trim(field[1]), trim(field[2]), column[1]),
				cell(trim(field[1]), trim(field[2]), column[2]),
				cell(trim(field[1]), trim(field[2]), column[3])
		}' "$table" "$TOP/mail/bench" || die "mail/bench does not fit docs/bench/$from/table.txt"
}

# All that has changed from version 2 on, the newest first.  A section is for the sets and
# the bases that it names, or for all.
changes()
{
	awk -v base="$BASE" -v set="$set" -v version="$version" '
		/^#/ { next }
		/^v[0-9]+( |$)/ {
			n = substr($1, 2) + 0
			bases = sets = my_base = my_set = 0
			for (i = 2; i <= NF; i++) {
				if ($i ~ /^[0-9]/)
					bases++
				else
					sets++
				my_base += $i == base
				my_set += $i == set
			}
			mine = n <= version && (my_base || !bases) && (my_set || !sets)
			if (mine && n != last) {
				print (last ? "\n" : "") "Changes in v" n ":"
				last = n
			}
			next
		}
		mine && NF { print }' "$TOP/mail/changelog"
}

# What it applies to.  A commit is named only if it is somebody else's to find: the
# composed tree's are not, those of a clone of Linux are.
base_of()
{
	local source linux head

	source=$(basename "$(cat "$tree/.git/lab/base")")
	linux=$(git -C "$tree" show base:Makefile |
		awk '$1 == "VERSION" { v = $3 } $1 == "PATCHLEVEL" { p = $3 } $1 == "SUBLEVEL" { s = $3 }
		     $1 == "EXTRAVERSION" { e = $3 } END { print "v" v "." p (s ? "." s : "") e }')
	case $source in
	"$BASE"-debian-*)
		echo "base: $linux (Debian's $DEBIAN_PACKAGE ${source#"$BASE"-debian-})" ;;
	*)	echo "base: $linux" ;;
	esac
	if [[ -n ${KERNEL_SRC:-} ]] &&
	   head=$(git -C "$KERNEL_SRC" rev-parse --verify -q 'HEAD^{tree}') &&
	   [[ $head == "$(git -C "$tree" rev-parse 'base^{tree}')" ]]; then
		echo "base-commit: $(git -C "$KERNEL_SRC" rev-parse HEAD)"
	fi
	# Which patches come first, as git format-patch --base has it
	git -C "$tree" rev-list --reverse "base..$from" | while read -r head; do
		git -C "$tree" diff-tree -p "$head" | git patch-id --stable |
			sed 's/^\([0-9a-f]*\).*/prerequisite-patch-id: \1/'
	done
}

# cover_text FILE: filled in; what it includes may use the numbers that it has named
cover_text()
{
	local line begins here=1 number

	while IFS= read -r line; do
		line=${line//%BASE%/$BASE}
		case $line in
		'@only '*)
			here=0
			[[ " ${line#@only } " != *" $BASE "* ]] || here=1
			continue ;;
		@end)
			here=1
			continue ;;
		esac
		((here)) || continue
		case $line in
		'#'*)	continue ;;
		'@patch '*)
			read -r _ name begins <<< "$line"
			number=$(patch_number "$begins")
			[[ -z $number ]] || numbers[$name]=$number
			continue ;;
		@proof)		proof; continue ;;
		@lock-order)	lock_order; continue ;;
		@bench)		bench; continue ;;
		@changes)	changes; continue ;;
		'@include '*)	cover_text "$TOP/mail/${line#@include }"; continue ;;
		@*)		die "${1#"$TOP"/}: '$line' is nothing that lab/mail.sh knows" ;;
		esac
		while [[ $line =~ \#([a-z]+) ]]; do
			name=${BASH_REMATCH[1]}
			[[ -n ${numbers[$name]:-} ]] || die "${1#"$TOP"/}: $BASE has no patch '#$name' in set $set"
			line=${line/"#$name"/"${numbers[$name]}"}
		done
		printf '%s\n' "$line"
	done < "$1"
}

write_cover()
{
	local -A numbers=()

	[[ -f $TOP/mail/cover/$set ]] || die "set $set has no cover letter: there is no mail/cover/$set"
	cover_text "$TOP/mail/cover/$set" > "$work/text"
	git stripspace < "$work/text" > "$work/cover"
	[[ $(head -n 1 "$work/cover") == 'Subject: '* ]] || die "mail/cover/$set has no subject"
	sed -i '1s/^Subject: //' "$work/cover"
	# What b4 fills in
	# shellcheck disable=SC2016
	{
		printf '${cover}\n\n---\n${shortlog}\n\n${diffstat}\n---\n'
		base_of
	} > "$work/template"
}

#
# Addresses, threads, versions and headers are b4's
#
in_b4()
{
	(cd "$work/git" && HOME=$work XDG_DATA_HOME=$work XDG_CACHE_HOME=$work \
		GIT_CONFIG_GLOBAL=$work/gitconfig EDITOR="cp '$work/cover'" b4 --offline-mode --no-stdin "$@") \
		>> "$work/b4.log" 2>&1 < /dev/null ||
		die "b4 $1 fails: $(reason "$work/b4.log")"
}

# The maintainers that the newest kernel knows: addresses in the MAINTAINERS of an old one
# may be dead.  No guessing from history, of which there is none, nor from words in the patch.
configure_b4()
{
	local who kind

	for kind in to:--nol cc:--nom; do
		who=$work/${kind%:*}
		printf '#!/bin/sh\ncd "%s" && exec ./scripts/get_maintainer.pl --nogit --nogit-fallback --nofixes --nokeywords --norolestats %s\n' \
			"$known" "${kind#*:}" > "$who"
		chmod +x "$who"
		git config -f "$work/gitconfig" "b4.send-auto-${kind%:*}-cmd" "$who"
	done
	git config -f "$work/gitconfig" user.name "$LAB_NAME"
	git config -f "$work/gitconfig" user.email "$LAB_EMAIL"
	git config -f "$work/gitconfig" b4.prep-cover-strategy branch-description
	git config -f "$work/gitconfig" b4.prep-cover-template "$work/template"
	# Or b4 would not even write
	git config -f "$work/gitconfig" sendemail.smtpserver localhost
}

write_mail()
{
	configure_b4
	git clone -q -s -n "$tree" "$work/git"
	# The files that are touched, as b4 wants a clean tree
	git -C "$tree" diff --name-only "$from" "$tip" | git -C "$work/git" sparse-checkout set --no-cone --stdin
	git -C "$work/git" checkout -q -b "$set" "$tip"
	git -C "$work/git" branch -q before "$from"
	in_b4 prep -e before
	in_b4 prep --edit-cover
	in_b4 prep --auto-to-cc
	[[ $BASE == "$newest" ]] || in_b4 prep --set-prefixes "$BASE.y"
	((version == 1)) || in_b4 prep --force-revision "$version"
	in_b4 send -o "$mail" --no-sign --not-me-too
}

((version == 1)) || changes | grep -x "Changes in v$version:" > /dev/null ||
	die "mail/changelog has no section v$version that is for set $set of $BASE: say there what changed"
"$TOP/lab/deps.sh" mail
tree=$("$TOP/lab/compose.sh" "$BASE")
known=$tree
[[ $BASE == "$newest" ]] || known=$(env -u KERNEL_SRC "$TOP/lab/fetch.sh" "$newest")
lock "$OUT/.lock-tree"
scratch work "$OUT"
mail=$work/mail
check_trailers
the_set "$set"
rewrite "$from" "$to"
git -C "$tree" log --reverse --format=%s "$from..$tip" > "$work/titles"
write_cover
write_mail
replace_folder "$mail" "$OUT/mail"
"$TOP/lab/mail-check.sh" "$BASE" "$set" || die "$OUT/mail cannot be sent as it is"
say "checked; to send: git send-email $OUT/mail/*.eml"
