#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: writeback.sh BASE
#
# Write the commits of build/BASE/tree (base..series) back to where they came from:
# a commit that does nothing but add files that stand under linux/, or whose subject is
# that of a linux/commits/NAME.msg, to linux/; one with the subject of a patch that the
# order takes from another folder to there; every other one to series/BASE/, numbered in
# order.  A commit that adds a file to the ones linux/ has is written to linux/ if
# linux/commits has its subject.  Orders of other folders follow when a patch that they
# name gets another number.
#
# What the tree does not change stays as it is here.  What was changed both in the tree
# and here, since the tree was composed, is named, and nothing is written.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
work=''

[[ -f $TREE/.git/lab/base ]] || die "there is no $TREE; run make compose first"
lock "$OUT/.lock-tree"
[[ ! -f $TREE/.git/lab/next && -d $TREE/.git/lab/given ]] ||
	die "composing $TREE was interrupted; run make compose first"
[[ ! -d $TREE/.git/rebase-merge && ! -d $TREE/.git/rebase-apply && ! -f $TREE/.git/CHERRY_PICK_HEAD ]] ||
	die "a rebase is under way in $TREE; git rebase --continue or --abort first"
[[ $(git -C "$TREE" symbolic-ref -q HEAD) == refs/heads/series ]] ||
	git -C "$TREE" merge-base --is-ancestor series HEAD ||
	die "$TREE is on another branch, and series has commits that this one has not; git -C $TREE checkout series"
[[ -z $(git -C "$TREE" status --porcelain) ]] ||
	die "$TREE has changes that are not committed; commit them first"
git -C "$TREE" merge-base --is-ancestor base HEAD ||
	die "the history of $TREE does not start at the base any more"
[[ -z $(git -C "$TREE" rev-list --merges base..HEAD) ]] ||
	die "$TREE has a merge commit; a series is a straight line"

given=$TREE/.git/lab/given
scratch work "$OUT"
mkdir "$work/new"
: > "$work/gone"

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
		! git -C "$TREE" cat-file -e "$1^:$file" 2>/dev/null || return 1
	done < <(git -C "$TREE" diff-tree -r --no-commit-id --name-only "$1")
}

slug()
{
	tr '[:upper:]' '[:lower:]' <<< "$1" | tr -cs 'a-z0-9\n' - | sed 's/^-//; s/-$//'
}

# The files as they should be are put together in $work/new, with those to remove in
# $work/gone, both by their path in the project.
wanted()
{
	mkdir -p "$work/new/$(dirname "$1")"
	cat > "$work/new/$1"
	[[ ${2:-} != 100755 ]] || chmod 755 "$work/new/$1"
}

same()
{
	[[ -e $1 || -e $2 ]] || return 0
	[[ -e $1 && -e $2 && ( ( -x $1 && -x $2 ) || ( ! -x $1 && ! -x $2 ) ) ]] && cmp -s "$1" "$2"
}

# Prints the paths that the tree changes.  Those changed here too go to $work/conflicts.
changes()
{
	local file

	while read -r file; do
		! same "$work/new/$file" "$TOP/$file" || continue
		! same "$work/new/$file" "$given/$file" || continue
		same "$TOP/$file" "$given/$file" || echo "$file" >> "$work/conflicts"
		echo "$file"
	done < <({ (cd "$work/new" && find . -type f | sed 's,^\./,,'); cat "$work/gone"; } | sort -u)
}

write_shared()
{
	local commit=$1 name=$2 msg=linux/commits/$2.msg mode type blob file

	while read -r _ mode _ blob type file; do
		if [[ $type == D ]]; then
			rm -f "$work/new/linux/$file"
			echo "linux/$file" >> "$work/gone"
		else
			git -C "$TREE" cat-file blob "$blob" | wanted "linux/$file" "$mode"
		fi
	done < <(git -C "$TREE" diff-tree -r --no-commit-id --no-renames "$commit")

	{
		git -C "$TREE" log -1 --format=%B "$commit" | git stripspace
		echo
		# The globs that were there are kept where they still cover the files.
		git -C "$TREE" diff-tree -r --no-commit-id --name-only --diff-filter=d "$commit" |
			cover "$TOP/$msg"
	} > "$work/msg"
	wanted "$msg" < "$work/msg"
}

# What a patch says and does, wherever in its files
essence()
{
	git -C "$TREE" mailinfo "$work/msg" "$work/diff" < "$1" | grep -v '^Date: ' &&
		git stripspace < "$work/msg" && git patch-id --stable < "$work/diff" | cut -d ' ' -f 1
}

# The patch of another folder that a subject is of, by its path in the project
others_named()
{
	local patch

	while read -r patch; do
		[[ $(git mailinfo /dev/null /dev/null < "$given/$patch" | sed -n 's/^Subject: //p') != "$1" ]] || {
			echo "$patch"
			return
		}
	done < "$work/others"
	return 1
}

# It is written if the tree changes it, which its place in the files of this base does not.
write_others()
{
	format -o "$work" -1 "$1" > "$work/name"
	[[ $(essence "$(cat "$work/name")") == "$(essence "$given/$2")" ]] ||
		wanted "$2" < "$(cat "$work/name")"
}

# follow OLD NEW: the numbers of patches, where other orders name them
follow()
{
	local order

	for order in "$TOP"/series/*/order; do
		grep -qxF "../$BASE/$1" "$order" || continue
		sed -i "s,^\.\./$BASE/${1//./\\.}\$,../$BASE/$2," "$order"
		say "wrote ${order#"$TOP/"}"
	done
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
mkdir "$work/patches"
SERIES=$given/series/$BASE others_patches > "$work/others"
while read -r commit; do
	subject=$(git -C "$TREE" log -1 --format=%s "$commit")
	[[ -n $(git -C "$TREE" diff-tree -r --no-commit-id --name-only "$commit") ]] ||
		die "$TREE has a commit that changes nothing, '$subject'; git rebase -i base, and drop it"
	if name=$(others_named "$subject"); then
		write_others "$commit" "$name"
		echo "..${name#series}"
	elif name=$(message_named "$subject") || all_shared "$commit"; then
		name=${name:-$(slug "$subject")}
		write_shared "$commit" "$name"
		echo "new $name"
	else
		number=$((number + 1))
		format --start-number "$number" -o "$work/patches" -1 "$commit" > "$work/name"
		basename "$(cat "$work/name")"
	fi
done > "$work/entries" < <(git -C "$TREE" rev-list --reverse base..HEAD)

# Comments stay before the patch that they stood before, or at the top.
awk '
	{ key = $0; sub(/^[0-9]+-/, "", key) }
	FILENAME != last { files++; last = FILENAME }
	files == 1 && /^(#|$)/ { text = text $0 "\n"; next }
	files == 1 { if (!seen++) top = text; else before[key] = text; text = ""; next }
	FNR == 1 { printf "%s", top }
	{ printf "%s", before[key]; print }
	' "$SERIES/order" "$work/entries" > "$work/order"

for patch in "$work"/patches/*.patch; do
	[[ ! -f $patch ]] || wanted "series/$BASE/${patch##*/}" < "$patch"
done
# Of the patches that are not in the tree those go that it was composed from.
for patch in "$SERIES"/*.patch; do
	name=series/$BASE/${patch##*/}
	[[ ! -f $patch || -f $work/new/$name ]] ||
		[[ ! -f $given/$name ]] || echo "$name" >> "$work/gone"
done
wanted "series/$BASE/order" < "$work/order"

mapfile -t files < <(changes)
if [[ -s $work/conflicts && -z ${FORCE:-} ]]; then
	die "$(head -n 1 "$work/conflicts") was changed here too since $TREE was composed; undo one of the changes, FORCE=1 takes the tree's"
fi
for file in ${files[@]+"${files[@]}"}; do
	if [[ -f $work/new/$file ]]; then
		mkdir -p "$(dirname "$TOP/$file")"
		cp "$work/new/$file" "$TOP/$file"
		say "wrote $file"
	else
		rm -f "$TOP/$file"
		say "removed $file"
	fi
done

while read -r old; do
	for patch in "$work/patches"/[0-9][0-9][0-9][0-9]-"${old#*-}"; do
		[[ ! -f $patch ]] || follow "$old" "${patch##*/}"
	done
done < <(sed -n "s,^series/$BASE/,,p" "$work/gone")

# From now on the tree's are the ones to compare with.
cp -r "$work/new/." "$given/"
while read -r file; do
	rm -f "$given/$file"
done < "$work/gone"
git -C "$TREE" branch -q -f series HEAD 2>/dev/null || :
git -C "$TREE" rev-parse HEAD > "$TREE/.git/lab/commit"
rm -f "$TREE/.git/lab/inputs"
say "series/$BASE has $(grep -cv '^#' "$SERIES/order") patches"
