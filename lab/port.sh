#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: port.sh FROM BASE
#
# Carry the fixup commits ("fixup! SUBJECT", as git commit --fixup makes them) that
# build/FROM/tree has to build/BASE/tree: each goes into the patch of the same subject
# there.  What does not fit is named, with the patch to fit by hand, and changes nothing.
# Do this before git rebase --autosquash in build/FROM/tree, which leaves none.

. "$(dirname "$0")/lib.sh"
source=${1:-}
[[ -n $source ]] || die "from which kernel? give FROM=, one of: $(bases | paste -s -d ' ')"
load_base "$source"
source_tree=$TREE
[[ -f $source_tree/.git/lab/commit ]] || die "there is no $source_tree; run make compose BASE=$source first"
load_base "${2:-}"
[[ $source != "$BASE" ]] || die "FROM=$source: that is BASE itself"
work=''

mapfile -t fixups < <(git -C "$source_tree" log --reverse --format=%H -E \
	--grep='^(fixup|squash|amend)! ' "$(cat "$source_tree/.git/lab/commit")..HEAD")
((${#fixups[@]})) ||
	die "no fixup commits in $source_tree; git commit --fixup makes them, and git rebase --autosquash takes them in, so port before that"
"$TOP/lab/compose.sh" "$BASE" > /dev/null
lock "$OUT/.lock-tree"
scratch work "$OUT"
[[ -z $(git -C "$TREE" status --porcelain) ]] ||
	die "$TREE has changes that are not committed; commit them first"

# Of files under linux/ there is one for all kernels
shared()
{
	local file

	while read -r file; do
		[[ -f $TOP/linux/$file ]] || return 1
	done < <(git -C "$source_tree" diff-tree -r --no-commit-id --name-only "$1")
}

# git am finds out what was changed since by the contents that the commit began with
lend()
{
	local mode blob

	while read -r mode _ blob _; do
		[[ ${mode#:} != 000000 ]] || continue
		git -C "$source_tree" cat-file blob "$blob" |
			git -C "$TREE" hash-object -w --stdin > /dev/null
	done < <(git -C "$source_tree" diff-tree -r --no-commit-id "$1")
}

# carry COMMIT: with the fixup at the end, and then in its place
carry()
{
	local before

	lend "$1"
	before=$(git -C "$TREE" rev-parse HEAD)
	if git -C "$TREE" am -q -3 < "$work/patch" &> "$work/said" &&
	   GIT_SEQUENCE_EDITOR=: git -C "$TREE" rebase -q -i --autosquash base &>> "$work/said"; then
		return
	fi
	git -C "$TREE" rebase --abort &> /dev/null || git -C "$TREE" am --abort &> /dev/null || :
	git -C "$TREE" reset -q --hard "$before"
	return 1
}

export GIT_COMMITTER_NAME=${LAB_NAME:-lab} GIT_COMMITTER_EMAIL=${LAB_EMAIL:-lab@localhost}
carried=0 left=0
mkdir -p "$OUT/port"
rm -f "$OUT"/port/*.patch
for commit in "${fixups[@]}"; do
	subject=$(git -C "$source_tree" log -1 --format=%s "$commit" | sed -E 's/^((fixup|squash|amend)! )+//')
	git -C "$source_tree" format-patch -1 --stdout --full-index --binary "$commit" > "$work/patch"
	if shared "$commit"; then
		say "$subject: make writeback BASE=$source changes it for all kernels"
	elif ! git -C "$TREE" log --format=%s base..HEAD | grep -xF -- "$subject" > /dev/null; then
		say "$subject: $BASE has no such patch"
		left=$((left + 1))
	elif git -C "$TREE" apply -R --check --unidiff-zero "$work/patch" 2> /dev/null; then
		say "$subject: has it already"
	elif carry "$commit"; then
		say "$subject: carried over"
		carried=$((carried + 1))
	else
		left=$((left + 1))
		cp "$work/patch" "$OUT/port/$left.patch"
		say "$subject: does not fit, $(reason "$work/said"); by hand, from $OUT/port/$left.patch"
	fi
done
echo "$carried carried over, $left left to do by hand; to keep: make writeback BASE=$BASE"
((left == 0))
