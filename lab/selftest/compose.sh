# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
# Composing and writing back.
expect 'a series is composed' 0 'composed 2 patches' on_kernel compose 0.1
expect 'with a commit a patch' 0 'tools: Add a file.*vfio: Count on.*Linux 0.1.0' \
	bash -c "git -C '$tree' log --format=%s | tr '\n' ' '"
expect 'and the contents' 0 '^2$' cat "$tree/drivers/vfio/vfio.c" "$tree/tools/new.c"
expect 'a line is added after those like it' 0 '^tests := old tests [+]= new all: ' \
	bash -c "tr '\n' ' ' < '$tree/tools/Makefile'"
expect 'composing again does nothing' 0 "^$tree\$" on_kernel compose 0.1
git -C "$tree" config user.name nobody
git -C "$tree" config user.email nobody@localhost
expect 'writing back what was not edited' 0 'has 2 patches' lab writeback 0.1
cp -r "$project/series" "$work/series.before"
expect 'twice is the same' 0 'has 2 patches' lab writeback 0.1
expect 'and changes nothing' 0 '^$' bash -c "diff -r '$project/series' '$work/series.before' && echo"
(
	cd "$tree"
	echo four >> drivers/vfio/vfio.c
	git commit -q -a -m 'vfio: Count further'
	echo more >> tools/new.c
	git commit -q -a --fixup "$(git log --format=%h --grep='Add a file')"
	GIT_SEQUENCE_EDITOR=: git rebase -q -i --autosquash base
)
expect 'edits are not thrown away' 0 'has edits of its own' on_kernel compose 0.1
expect 'edits are written back' 0 'wrote linux/tools/new.c' lab writeback 0.1
expect 'as a patch more' 0 'four' cat "$project/series/0.1/vfio-count-further.patch"
expect 'and as a file' 0 'more' cat "$project/linux/tools/new.c"
order()
{
	grep -v '^#' "$project/series/0.1/order" | tr '\n' ' '
}
expect 'in the right order' 0 '^set two vfio-count-on.patch new new-file vfio-count-further.patch $' order
expect 'and compose to the same again' 0 '^$' bash -c "git -C '$tree' rev-parse 'HEAD^{tree}' > '$work/a' &&
	FORCE=1 KERNEL_SRC='$kernel' '$project/lab/compose.sh' 0.1 && git -C '$tree' rev-parse 'HEAD^{tree}' | diff - '$work/a' && echo"
expect 'one folder for git am' 0 '3 patches' on_kernel series 0.1
expect 'and for quilt' 0 '^0001-vfio-Count-on.patch 0002-.*.patch 0003-.*.patch $' \
	bash -c "tr '\n' ' ' < '$BUILD/0.1/series/series'"

# What a shared commit adds to a makefile is in its message
message()
{
	tr '\n' ' ' < "$project/linux/commits/new-file.msg"
}
cp "$project/linux/commits/new-file.msg" "$work/new-file.msg"
expect 'a line stays in the message that adds it' 0 'File: tools/[*].c Line: tools/Makefile: tests [+]= new $' message
(
	cd "$tree"
	sed -i 's/= new/= newer/' tools/Makefile
	git commit -q -a --fixup "$(git log --format=%h --grep='Add a file')"
	GIT_SEQUENCE_EDITOR=: git rebase -q -i --autosquash base
)
expect 'and is written back there' 0 'wrote linux/commits/new-file.msg' lab writeback 0.1
expect 'as it is now' 0 'Line: tools/Makefile: tests [+]= newer $' message
(
	cd "$tree"
	sed -i 's/= old/= older/' tools/Makefile
	git commit -q -a --fixup "$(git log --format=%h --grep='Add a file')"
	GIT_SEQUENCE_EDITOR=: git rebase -q -i --autosquash base
)
expect 'what it changes in one is not its own' fail "Add a file' does not only add lines to tools/Makefile" lab writeback 0.1
git -C "$tree" reset -q --hard 'series@{1}'
cp "$work/new-file.msg" "$project/linux/commits/"
FORCE=1 on_kernel compose 0.1 > /dev/null 2>&1
sed -i 's/tests += new/others += new/' "$project/linux/commits/new-file.msg"
expect 'a line needs one like it' fail "no line of tools/Makefile begins with 'others'" env FORCE=1 KERNEL_SRC="$kernel" "$project/lab/compose.sh" 0.1
cp "$work/new-file.msg" "$project/linux/commits/"
FORCE=1 on_kernel compose 0.1 > /dev/null 2>&1

# Sets, and what a patch says that is nothing to the series
sed -i 's/^vfio-count-further/set more\n&/' "$project/series/0.1/order"
expect 'a set begins with a line of the order' 0 'composed 3 patches' on_kernel compose 0.1
expect 'which stays' 0 'has 3 patches' lab writeback 0.1
expect 'where it is' 0 '^set two vfio-count-on.patch new new-file set more vfio-count-further.patch $' order
sed -i '/^set more/d' "$project/series/0.1/order"
on_kernel compose 0.1 > /dev/null 2>&1
expect 'a patch is its subject, its message and what it does' 0 '^Subject: vfio: Count on  Two was not enough. ---  diff --git a/[^ ]* b/[^ ]* --- ' \
	bash -c "tr '\n' ' ' < '$project/series/0.1/vfio-count-on.patch'"
(
	cd "$tree"
	echo five >> drivers/vfio/vfio.c
	git commit -q -a -m 'vfio: Count on'
)
expect 'two patches need two subjects' fail "has two commits with the subject 'vfio: Count on'" lab writeback 0.1
git -C "$tree" reset -q --hard HEAD^
(
	cd "$tree"
	echo different >> tools/new.c
	git commit -q -a -m 'tools: Have it different'
)
expect 'a shared file that is changed later' 0 'has 4 patches' lab writeback 0.1
expect 'is as it was added' 0 '^more$' tail -n 1 "$project/linux/tools/new.c"
expect 'and the change is a patch' 0 'vfio-count-further.patch tools-have-it-different.patch $' order
git -C "$tree" reset -q --hard HEAD^
expect 'which goes with its commit' 0 'removed series/0.1/tools-have-it-different.patch' lab writeback 0.1
