# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
# Composing and writing back.
expect 'a series is composed' 0 'composed 2 patches' on_kernel compose 0.1
expect 'with a commit a patch' 0 'tools: Add a file.*vfio: Count on.*Linux 0.1.0' \
	bash -c "git -C '$tree' log --format=%s | tr '\n' ' '"
expect 'and the contents' 0 '^2$' cat "$tree/drivers/vfio/vfio.c" "$tree/tools/new.c"
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
expect 'as a patch more' 0 'four' cat "$project/series/0.1/0002-vfio-Count-further.patch"
expect 'and as a file' 0 'more' cat "$project/linux/tools/new.c"
expect 'in the right order' 0 '^0001-vfio-Count-on.patch new new-file 0002-vfio-Count-further.patch $' \
	bash -c "grep -v '^#' '$project/series/0.1/order' | tr '\n' ' '"
expect 'and compose to the same again' 0 '^$' bash -c "git -C '$tree' rev-parse 'HEAD^{tree}' > '$work/a' &&
	FORCE=1 KERNEL_SRC='$kernel' '$project/lab/compose.sh' 0.1 && git -C '$tree' rev-parse 'HEAD^{tree}' | diff - '$work/a' && echo"
expect 'one folder for git am' 0 '3 patches' on_kernel series 0.1
