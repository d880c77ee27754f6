# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
# Two series beside each other: what differs, and what is carried over.
other=$BUILD/0.2/tree
mkdir "$project/series/0.2"
{ cat "$project/series/0.1/base.conf"; echo KERNEL=0.1; } > "$project/series/0.2/base.conf"
printf 'set two\nvfio-count-on.patch\nnew new-file\n' > "$project/series/0.1/order"
printf 'set two\nvfio-begin.patch\nvfio-count-on.patch\nnew new-file\n' > "$project/series/0.2/order"
# vfio_patch SUBJECT WHY: a patch of vfio.c with the hunk that comes
vfio_patch()
{
	printf 'Subject: %s\n\n%s\n---\n\n' "$1" "$2"
	echo 'diff --git a/drivers/vfio/vfio.c b/drivers/vfio/vfio.c'
	printf '%s a/drivers/vfio/vfio.c\n%s b/drivers/vfio/vfio.c\n' --- +++
	cat
}
printf '@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n' |
	vfio_patch 'vfio: Count on' 'Two was not enough.' > "$project/series/0.1/vfio-count-on.patch"
sed 's/-1,3 +1,3/-2,3 +2,3/' "$project/series/0.1/vfio-count-on.patch" > "$project/series/0.2/vfio-count-on.patch"
printf '@@ -1,3 +1,4 @@\n+zero\n one\n two\n three\n' |
	vfio_patch 'vfio: Begin' 'Nothing was before one.' > "$project/series/0.2/vfio-begin.patch"

fixup()
{
	git -C "$tree" add -A
	git -C "$tree" -c user.name=nobody -c user.email=nobody@localhost commit -q --no-edit --fixup ":/$1"
}

expect 'to compare takes another kernel' fail 'with which kernel. give WITH=, one of: 0.2$' on_kernel compare 0.1
expect 'that there is' fail "unknown BASE '0.3'" on_kernel compare 0.1 0.3
expect 'not the same' fail 'that is BASE itself' on_kernel compare 0.1 0.1
FORCE=1 on_kernel compose 0.1 &> "$work/said"
expect 'a patch more is one that only the other has' 0 '^1: .* < -:  -+ vfio: Begin' on_kernel compare 0.1 0.2
expect 'by make' 0 '^-:  -+ > 1: .* vfio: Begin' in_make compare BASE=0.2 WITH=0.1 "KERNEL_SRC=$kernel"
expect 'of a set that there is' fail 'SET=one: there is no such set' env SET=one KERNEL_SRC="$kernel" \
	"$project/lab/compare.sh" 0.1 0.2

expect 'to port takes another kernel, too' fail 'from which kernel. give FROM=, one of: 0.1 0.2$' on_kernel port
expect 'without a fixup nothing is carried over' fail 'no fixup commits in .*0.1/tree' on_kernel port 0.1 0.2
expect 'nor to itself' fail 'that is BASE itself' on_kernel port 0.1 0.1
echo four >> "$tree/drivers/vfio/vfio.c"
fixup 'vfio: Count on'
expect 'a fixup is carried over' 0 '1 carried over, 0 left' on_kernel port 0.1 0.2
expect 'into the patch of its subject' 0 '^[+]four' git -C "$other" show ':/vfio: Count on'
expect 'beside what the other has there' 0 'zero.*one.*2.*three.*four' bash -c "tr '\n' ' ' < '$other/drivers/vfio/vfio.c'"
expect 'and no patch more' 0 '^3$' git -C "$other" rev-list --count base..HEAD
expect 'so it can be written back' 0 'wrote series/0.2/vfio-count-on.patch' lab writeback 0.2
echo more >> "$tree/tools/new.c"
fixup 'tools: Add a file'
expect 'not again, and what is for all kernels neither' 0 '0 carried over, 0 left' on_kernel port 0.1 0.2
sed -i s/one/1/ "$tree/drivers/vfio/vfio.c"
fixup 'vfio: Count on'
sed -i s/one/ONE/ "$other/drivers/vfio/vfio.c"
expect 'edits are in the way' fail 'has changes that are not committed' on_kernel port 0.1 0.2
git -C "$other" -c user.name=nobody -c user.email=nobody@localhost commit -q -a -m 'vfio: Shout'
git -C "$other" rev-parse HEAD > "$work/before"
expect 'what does not fit is left to do' fail 'Count on: does not fit.*/0.2/port/[0-9].patch' on_kernel port 0.1 0.2
expect 'and is there' 0 '^[+]1$' cat "$BUILD/0.2/port/1.patch"
expect 'with nothing changed' 0 "^$(cat "$work/before")$" git -C "$other" rev-parse HEAD
expect 'not even half way' 0 '^$' bash -c "git -C '$other' status --porcelain && echo"
rm -rf "$project/series/0.2" "$BUILD/0.2"
FORCE=1 on_kernel compose 0.1 &> "$work/said"
