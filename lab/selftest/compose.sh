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

# A patch of another folder, which is no base here
cp -r "$project/series/0.1" "$work/series.before/now"
mkdir "$project/series/0.0"
cat > "$project/series/0.0/0007-less.patch" <<-'EOF'
	From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
	From: nobody <nobody@localhost>
	Date: Thu, 1 Jan 1970 00:00:00 +0000
	Subject: [PATCH] tools: Have less

	There was more.
	---
	diff --git a/tools/new.c b/tools/new.c
	--- a/tools/new.c
	+++ b/tools/new.c
	@@ -1,2 +1,1 @@
	 a new file
	-more
EOF
printf '../0.1/0001-vfio-Count-on.patch\n../0.1/0002-vfio-Count-further.patch\n' > "$project/series/0.0/order"
sed -i '/^new/a ../0.0/0007-less.patch' "$project/series/0.1/order"
cp -r "$project/series" "$work/series.others"
expect 'a patch of another folder is taken' 0 'composed 4 patches' on_kernel compose 0.1
expect 'which turns a shared file back' 0 '^a new file$' cat "$tree/tools/new.c"
expect 'it can be written back' 0 'has 4 patches' lab writeback 0.1
expect 'and stays where and what it is' 0 '^$' bash -c "diff -r '$project/series' '$work/series.others' && echo"
sed -i 's/There was more/There was too much/' "$project/series/0.0/0007-less.patch"
expect 'when it changes there it is composed anew' 0 'composed 4 patches' on_kernel compose 0.1
(
	cd "$tree"
	git checkout -q --detach series~2
	sed -i s/three/3/ drivers/vfio/vfio.c
	git commit -q -a -m 'vfio: Count in figures'
	git cherry-pick series~1 > /dev/null
	echo less > tools/new.c
	git commit -q -a --amend --no-edit
	git cherry-pick -X theirs series > /dev/null 2>&1
	echo different >> tools/new.c
	git commit -q -a -m 'tools: Have it different'
	git checkout -q -B series
)
expect 'when it changes in the tree it is written there' 0 'wrote series/0.0/0007-less.patch' lab writeback 0.1
expect 'with what it is now' 0 '^.less$' cat "$project/series/0.0/0007-less.patch"
expect 'a shared file that is changed later is as it was added' 0 '^more$' cat "$project/linux/tools/new.c"
expect 'and the change is a patch' 0 \
	'^0001-vfio-Count-on.patch new new-file 0002-vfio-Count-in-figures.patch ../0.0/0007-less.patch 0003-vfio-Count-further.patch 0004-tools-Have-it-different.patch $' \
	bash -c "grep -v '^#' '$project/series/0.1/order' | tr '\n' ' '"
expect 'other orders follow the numbers' 0 '^../0.1/0001-vfio-Count-on.patch ../0.1/0003-vfio-Count-further.patch $' \
	bash -c "tr '\n' ' ' < '$project/series/0.0/order'"
rm -r "$project/series/0.0" "$project/series/0.1"
cp -r "$work/series.before/now" "$project/series/0.1"
expect 'without it all is as before' 0 'composed 3 patches' env FORCE=1 KERNEL_SRC="$kernel" "$project/lab/compose.sh" 0.1
echo ../0.0/0007-less.patch >> "$project/series/0.1/order"
expect 'one that is not there is named' fail '../0.0/0007-less.patch, which is not in' on_kernel compose 0.1
sed -i '$d' "$project/series/0.1/order"
expect 'and that is all' 0 . on_kernel compose 0.1
