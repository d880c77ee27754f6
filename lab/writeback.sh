#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: writeback.sh BASE
#
# Write the commits of build/BASE/tree (base..series) back to where they came from:
# a commit that does nothing but add files that stand under linux/, or whose subject is
# that of a linux/commits/NAME.msg, to linux/; every other one to series/BASE/, in a file
# that is called as its subject.  A commit that adds a file to the ones linux/ has is written
# to linux/ if linux/commits has its subject, and so is what it adds to makefiles.
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

# Who made a patch, when and of what, and how large it is, only makes two of them differ
format()
{
	git -C "$TREE" log -1 --format='Subject: %s%n%n%b---%n' "$1"
	git -C "$TREE" diff-tree -r -p -M -U3 --no-commit-id --no-ext-diff "$1" |
		sed '/^index [0-9a-f]\{7,\}\.\.[0-9a-f]\{7,\}/d'
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

# What a commit adds to a makefile, as the message has it; where it belongs follows from that
lines_added()
{
	local diff

	diff=$(git -C "$TREE" diff -U0 --no-ext-diff "$1^" "$1" -- "$2" | sed '1,/^@@/d')
	! grep -qv '^[+@]' <<< "$diff" ||
		die "'$(git -C "$TREE" log -1 --format=%s "$1")' does not only add lines to $2; make the rest a commit of its own"
	sed -n "s,^+,Line: $2: ,p" <<< "$diff"
}

write_shared()
{
	local commit=$1 name=$2 msg=linux/commits/$2.msg mode type blob file

	: > "$work/lines"
	while read -r _ mode _ blob type file; do
		if [[ $type == M && $file =~ (^|/)Makefile$|\.mk$ ]]; then
			lines_added "$commit" "$file" >> "$work/lines"
		elif [[ $type == D ]]; then
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
			{ grep -vxFf <(sed 's/^Line: \([^:]*\): .*/\1/' "$work/lines") || :; } | cover "$TOP/$msg"
		cat "$work/lines"
	} > "$work/msg"
	wanted "$msg" < "$work/msg"
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

while read -r commit; do
	subject=$(git -C "$TREE" log -1 --format=%s "$commit")
	[[ -n $(git -C "$TREE" diff-tree -r --no-commit-id --name-only "$commit") ]] ||
		die "$TREE has a commit that changes nothing, '$subject'; git rebase -i base, and drop it"
	name=$(slug "$subject")
	if message=$(message_named "$subject") || all_shared "$commit"; then
		name=${message:-$name}
		write_shared "$commit" "$name"
		echo "new $name"
	elif [[ -e $work/new/series/$BASE/$name.patch ]]; then
		die "$TREE has two commits with the subject '$subject'"
	else
		format "$commit" | wanted "series/$BASE/$name.patch"
		echo "$name.patch"
	fi
done > "$work/entries" < <(git -C "$TREE" rev-list --reverse base..HEAD)

# Comments and sets stay before the patch that they stood before, or at the top.
awk '
	FILENAME != last { files++; last = FILENAME }
	files == 1 && /^(#|set |$)/ { text = text $0 "\n"; next }
	files == 1 { if (!seen++) top = text; else before[$0] = text; text = ""; next }
	FNR == 1 { printf "%s", top }
	{ printf "%s", before[$0]; print }
	' "$SERIES/order" "$work/entries" > "$work/order"

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

# From now on the tree's are the ones to compare with.
cp -r "$work/new/." "$given/"
while read -r file; do
	rm -f "$given/$file"
done < "$work/gone"
git -C "$TREE" branch -q -f series HEAD 2>/dev/null || :
git -C "$TREE" rev-parse HEAD > "$TREE/.git/lab/commit"
rm -f "$TREE/.git/lab/inputs"
say "series/$BASE has $(wc -l < "$work/entries") patches"
