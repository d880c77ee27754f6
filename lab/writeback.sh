#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: writeback.sh BASE
#
# Write the commits of build/BASE/tree (base..series) back to where they came from:
# a commit that only touches files that stand under linux/ and not in the base, or whose
# subject is that of a linux/commits/NAME.msg, to linux/; every other one to series/BASE/,
# numbered in order.  A commit that adds a file to the ones linux/ has is written to
# linux/ if linux/commits has its subject.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
work=''

[[ -f $TREE/.git/lab/base ]] || die "there is no $TREE; run make compose first"
lock "$OUT/.lock-tree"
[[ -z $(git -C "$TREE" status --porcelain --untracked-files=no | head -n 1) ]] ||
	die "$TREE has changes that are not committed; commit them first"
git -C "$TREE" merge-base --is-ancestor base HEAD ||
	die "the history of $TREE does not start at the base any more"
[[ -z $(git -C "$TREE" rev-list --merges base..HEAD) ]] ||
	die "$TREE has a merge commit; a series is a straight line"

scratch work "$OUT"

format()
{
	git -C "$TREE" -c diff.noprefix=false -c diff.mnemonicPrefix=false \
		-c format.signOff=false -c format.useAutoBase=false -c diff.renames=true \
		format-patch --zero-commit --no-signature -N -U3 --abbrev=12 \
		--no-thread --no-numbered --no-attach --no-encode-email-headers "$@"
}

message_named()
{
	local msg

	for msg in "$TOP"/linux/commits/*.msg; do
		if [[ -f $msg && $(head -n 1 "$msg") == "$1" ]]; then
			basename "$msg" .msg
			return
		fi
	done
	return 1
}

all_shared()
{
	local file

	while read -r file; do
		[[ -f $TOP/linux/$file ]] || return 1
		! git -C "$TREE" cat-file -e "base:$file" 2>/dev/null || return 1
	done < <(git -C "$TREE" diff-tree -r --no-commit-id --name-only "$1")
}

slug()
{
	tr '[:upper:]' '[:lower:]' <<< "$1" | tr -cs 'a-z0-9\n' - | sed 's/^-//; s/-$//'
}

replace()
{
	if ! cmp -s "$1" "$2"; then
		cp "$1" "$2"
		say "wrote ${2#"$TOP/"}"
	fi
}

write_shared()
{
	local commit=$1 name=$2 msg=$TOP/linux/commits/$2.msg mode type blob file

	while read -r _ mode _ blob type file; do
		if [[ $type == D ]]; then
			rm -f "$TOP/linux/$file"
			say "removed linux/$file"
			continue
		fi
		git -C "$TREE" cat-file blob "$blob" > "$work/file"
		mkdir -p "$(dirname "$TOP/linux/$file")"
		replace "$work/file" "$TOP/linux/$file"
		case $mode in
		100755)	chmod 755 "$TOP/linux/$file" ;;
		*)	chmod 644 "$TOP/linux/$file" ;;
		esac
	done < <(git -C "$TREE" diff-tree -r --no-commit-id --no-renames "$commit")

	{
		git -C "$TREE" log -1 --format=%B "$commit" | git stripspace
		echo
		# The globs that were there are kept where they still cover the files.
		git -C "$TREE" diff-tree -r --no-commit-id --name-only --diff-filter=d "$commit" |
			cover "$msg"
	} > "$work/msg"
	mkdir -p "$TOP/linux/commits"
	replace "$work/msg" "$msg"
}

cover()
{
	local files globs file glob found

	files=$(cat)
	globs=$(sed -n 's/^File: *//p' "$1" 2>/dev/null) || globs=
	{
		while read -r file; do
			found=$file
			while read -r glob; do
				# shellcheck disable=SC2053	# a glob on purpose
				[[ -z $glob || $file != $glob ]] || found=$glob
			done <<< "$globs"
			echo "$found"
		done <<< "$files"
	} | awk '!seen[$0]++ { print "File: " $0 }'
}

number=0
sed -n '/^#/p; /^#/!q' "$SERIES/order" 2>/dev/null > "$work/order" || :
mkdir "$work/patches"
while read -r commit; do
	subject=$(git -C "$TREE" log -1 --format=%s "$commit")
	if name=$(message_named "$subject") || all_shared "$commit"; then
		name=${name:-$(slug "$subject")}
		write_shared "$commit" "$name"
		echo "new $name" >> "$work/order"
	else
		number=$((number + 1))
		format --start-number "$number" -o "$work/patches" -1 "$commit" > "$work/name"
		basename "$(cat "$work/name")" >> "$work/order"
	fi
done < <(git -C "$TREE" rev-list --reverse base..HEAD)

for patch in "$work"/patches/*.patch; do
	[[ ! -f $patch ]] || replace "$patch" "$SERIES/${patch##*/}"
done
for patch in "$SERIES"/*.patch; do
	if [[ -f $patch && ! -f $work/patches/${patch##*/} ]]; then
		rm -f "$patch"
		say "removed ${patch#"$TOP/"}"
	fi
done
replace "$work/order" "$SERIES/order"

# The tree and the folder agree now.
git -C "$TREE" branch -q -f series HEAD 2>/dev/null || :
git -C "$TREE" rev-parse HEAD > "$TREE/.git/lab/commit"
rm -f "$TREE/.git/lab/inputs"
say "series/$BASE has $(grep -cv '^#' "$SERIES/order") patches"
