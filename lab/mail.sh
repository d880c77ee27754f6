#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: mail.sh BASE
#
# SET=NAME: write a set of the series as mail to build/BASE/mail/: a folder that git
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
prefix=PATCH
[[ $BASE == "$newest" ]] || prefix="PATCH $BASE.y"

format()
{
	local options=()

	((version == 1)) || options=(-v "$version")
	as_sender git -C "$tree" format-patch -q ${options[@]+"${options[@]}"} --numbered --cover-letter \
		--subject-prefix="$prefix" --thread=shallow --encode-email-headers \
		--no-attach --no-signature --abbrev=12 -o "$mail" "$from..$tip"
	mapfile -t patches < <(find "$mail" -name '*.patch' ! -name '*0000-cover-letter.patch' | sort)
	cover=$(find "$mail" -name '*0000-cover-letter.patch')
}

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
		@base)		base_of; continue ;;
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
	local subject
	local -A numbers=()

	[[ -f $TOP/mail/cover/$set ]] || die "set $set has no cover letter: there is no mail/cover/$set"
	cover_text "$TOP/mail/cover/$set" > "$work/text"
	git stripspace < "$work/text" > "$work/cover"
	subject=$(sed -n '1s/^Subject: //p' "$work/cover")
	[[ -n $subject ]] || die "mail/cover/$set has no subject"
	sed -i 1,2d "$work/cover"
	SUBJECT=$subject TEXT=$work/cover perl -i -pe '
		s/\*\*\* SUBJECT HERE \*\*\*/$ENV{SUBJECT}/;
		if (/^\*\*\* BLURB HERE \*\*\*$/) {
			open(my $text, "<", $ENV{TEXT}) or die;
			$_ = join "", <$text>;
		}' "$cover"
}

#
# To and Cc
#

# Of whom get_maintainer.pl of the newest kernel knows: addresses in the MAINTAINERS of an
# old one may be dead.  No guessing from history, of which there is none, nor from words
# in the patch.
maintainers()
{
	(cd "$known" && HOME=$work PERL_HASH_SEED=0 ./scripts/get_maintainer.pl --nogit --nogit-fallback --nofixes --nokeywords \
		--norolestats --roles "$1" 2> "$work/err") ||
		die "get_maintainer.pl fails on ${1##*/}: $(head -n 1 "$work/err")"
}

# One "Name <address>" a line, none twice, and not the sender's, as a header
header()
{
	perl -MEncode=decode,encode -e '
		my ($header, $sender) = splice @ARGV, 0, 2;
		my (%seen, @list);
		while (<STDIN>) {
			chomp;
			my $address = /<([^<>]+)>/ ? $1 : $_;
			next if $seen{lc $address}++ || lc $address eq lc $sender;
			if (/[^\x00-\x7f]/ && /^"?([^"]*?)"?\s+<.*>$/) {
				$_ = encode("MIME-Q", decode("UTF-8", $1)) . " <$address>";
			}
			push @list, $_;
		}
		print "$header: ", join(",\n    ", @list), "\n" if @list;' "$1" "$LAB_EMAIL"
}

# Its lines once each, lists after people
people_first()
{
	awk '!seen[$0]++ { if (/</) print; else lists = lists $0 "\n" } END { printf "%s", lists }'
}

# To are the maintainers; on Cc the reviewers, the lists, and whom the trailers name.
address()
{
	local patch people

	: > "$work/all.to"
	: > "$work/all.cc"
	for patch in "${patches[@]}"; do
		people=$(maintainers "$patch")
		sed -n 's/ (\(maintainer\|supporter\)[:)].*//p' <<< "$people" | sort > "$work/to"
		{
			sed '/ (\(maintainer\|supporter\)[:)]/d; s/> (.*/>/; />/!s/ (.*//' <<< "$people" | sort
			sed -n '/^---$/q; s/^\(Cc\|Suggested-by\): //p' "$patch"
		} | people_first > "$work/cc"
		[[ -s $work/to ]] || die "get_maintainer.pl knows no maintainer of ${patch##*/}"
		cat "$work/to" >> "$work/all.to"
		cat "$work/cc" >> "$work/all.cc"
		insert_addresses "$patch" "$work/to" "$work/cc"
	done
	people_first < "$work/all.to" > "$work/cover.to"
	# A stable variant has nothing to be applied yet.
	[[ $BASE == "$newest" ]] || echo stable@vger.kernel.org >> "$work/all.cc"
	people_first < "$work/all.cc" > "$work/cover.cc"
	insert_addresses "$cover" "$work/cover.to" "$work/cover.cc"
}

# insert_addresses FILE TO CC: at the end of its header
insert_addresses()
{
	local file=$1

	{
		header To < "$2"
		grep -vxFf "$2" "$3" | header Cc
	} > "$work/header"
	sed -i "1,/^\$/{
		/^\$/{
			e cat '$work/header'
		}
	}" "$file"
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
format
write_cover
address
replace_folder "$mail" "$OUT/mail"
"$TOP/lab/mail-check.sh" "$BASE" "$set" || die "$OUT/mail cannot be sent as it is"
say "checked; to send: git send-email $OUT/mail/*.patch"
