# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# Nothing is lost that somebody has made, and nothing touched that the lab did not make.

echo changed > "$tree/drivers/vfio/vfio.c"
expect 'writing back needs commits' fail 'not committed' lab writeback 0.1
expect 'make clean keeps edits' fail 'has edits' lab clean
expect 'and so does make distclean' fail 'has edits' in_make distclean
git -C "$tree" checkout -q .
echo new > "$tree/drivers/vfio/new.c"
expect 'make clean keeps a new file' fail 'has edits' lab clean
expect 'which is written back when it is committed' fail 'not committed' lab writeback 0.1
rm "$tree/drivers/vfio/new.c"
printf '*.tmp\n' >> "$tree/.git/info/exclude"
echo new > "$tree/drivers/vfio/notes.tmp"
expect 'make clean keeps a file that git is told to ignore' fail 'has edits' lab clean
rm "$tree/drivers/vfio/notes.tmp"
git -C "$tree" checkout -q -b topic
git -C "$tree" commit -q --allow-empty -m 'vfio: Try something'
git -C "$tree" checkout -q series
expect 'make clean keeps a commit on another branch' fail 'has edits' lab clean
git -C "$tree" branch -q -D topic
echo changed > "$tree/drivers/vfio/vfio.c"
git -C "$tree" stash -q
expect 'make clean keeps what was stashed' fail 'has edits' lab clean
git -C "$tree" stash drop -q
mkdir "$tree/obj-mine"
echo thesis > "$tree/obj-mine/thesis"
expect 'make clean keeps objects that are not its own' fail 'has edits .obj-mine' lab clean
rm -r "$tree/obj-mine"
echo changed > "$tree/drivers/vfio/vfio.c"
expect 'FORCE is 1, or nothing' fail 'FORCE=0: give 1, or nothing' in_make clean FORCE=0
expect 'FORCE=1 drops what the command asks about' 0 'patches; in a kernel tree' \
	env FORCE=1 KERNEL_SRC="$kernel" "$project/lab/series.sh" 0.1
expect 'and nothing else' 0 '^changed$' cat "$tree/drivers/vfio/vfio.c"
git -C "$tree" checkout -q .
git -C "$tree" checkout -q -b topic series~1
expect 'nothing is written back from a branch that lacks commits' fail 'is on another branch' lab writeback 0.1
git -C "$tree" checkout -q series
git -C "$tree" branch -q -D topic
GIT_SEQUENCE_EDITOR="sed -i 1s/pick/edit/" git -C "$tree" rebase -q -i base > /dev/null 2>&1
expect 'nor in the middle of a rebase' fail 'a rebase is under way' lab writeback 0.1
git -C "$tree" rebase --abort > /dev/null
mv "$tree/.git/lab/given" "$tree/.git/lab/given.away"
expect 'nor after a compose that was interrupted' fail 'was interrupted; run make compose' lab writeback 0.1
mv "$tree/.git/lab/given.away" "$tree/.git/lab/given"

cp -r "$kernel" "$work/other-kernel"
echo four >> "$work/other-kernel/drivers/vfio/vfio.c"
echo changed > "$tree/drivers/vfio/vfio.c"
expect 'edits are not used with another source than theirs' fail 'has edits .*, and is of another source' \
	env KERNEL_SRC="$work/other-kernel" "$project/lab/compose.sh" 0.1
expect 'and they are there still' 0 '^changed$' cat "$tree/drivers/vfio/vfio.c"
git -C "$tree" checkout -q .

# A tree that is edited while the tests run
mkdir -p "$work/stubs"
cp "$project"/lab/{build,selftests,vmtests,check}.sh "$work/stubs/"
cat > "$project/lab/build.sh" <<-'EOF'
	#!/bin/bash
	tree=$("$(dirname "$0")/compose.sh" "$1") || exit 1
	[[ -z ${EDIT:-} ]] || echo edited > "$tree/drivers/vfio/vfio.c"
	echo "$tree"
EOF
printf '#!/bin/sh\necho /\n' > "$project/lab/selftests.sh"
printf '#!/bin/sh\necho 1 passed, 0 failed, 0 skipped\n' | tee "$project/lab/vmtests.sh" > "$project/lab/check.sh"
cp "$project/lab/packages" "$work/packages"
: > "$project/lab/packages"
test_project()
{
	on_kernel clean
	KERNEL_SRC=$kernel ONLY='static core' fresh env EDIT="$1" "$project/lab/test.sh"
}
expect 'make test keeps a tree that was edited meanwhile' 0 'has edits, and stays' test_project 1
expect 'with the edits' 0 '^edited$' cat "$tree/drivers/vfio/vfio.c"
git -C "$tree" checkout -q .
expect 'and says what its steps took' 0 '^# +[0-9]+ +[0-9]+  all' test_project ''
expect 'of others it leaves none behind' 0 '^$' bash -c "ls -d '$tree' 2>/dev/null || echo"
cp "$work/stubs"/* "$project/lab/"
cp "$work/packages" "$project/lab/packages"
on_kernel compose 0.1 > /dev/null 2>&1

# Somebody else's folders
expect 'CACHE and BUILD are two folders' fail 'give two folders, neither of them in the other' \
	fresh env CACHE="$work/one" BUILD="$work/one/build" "$project/lab/clean.sh" all
mkdir "$work/mine"
echo mine > "$work/mine/thesis"
expect 'make distclean refuses a folder that the lab did not make' fail "$work/mine was not made by the lab" \
	in_make distclean CACHE="$work/mine"
expect 'and so does make clean' fail "$work/mine was not made by the lab" fresh env BUILD="$work/mine" make -s -C "$project" clean
expect 'nothing in it is lost' 0 '^mine$' cat "$work/mine/thesis"
expect 'nor is it used' fail "$work/mine is not empty, and the lab did not make it" \
	env CACHE="$work/mine" KERNEL_SRC="$kernel" "$project/lab/fetch.sh" 0.1
expect 'a folder with a blank in its name is refused at once' fail 'does not work in a folder with a blank' \
	env CACHE="$work/my cache" KERNEL_SRC="$kernel" "$project/lab/fetch.sh" 0.1
on_kernel compose 0.1 > /dev/null 2>&1
mkdir -p "$BUILD/qemu/logs" "$CACHE/src"
git init -q "$CACHE/src/mine"
echo mine | tee "$BUILD/qemu/logs/thesis" "$CACHE/src/mine/thesis" > /dev/null
expect "make distclean looks into none but its own" 0 'cache/src stays, .*: mine$' lab clean all
expect "so others' are left" 0 '^mine$' cat "$BUILD/qemu/logs/thesis" "$CACHE/src/mine/thesis"
rm -r "$BUILD" "$CACHE"
on_kernel compose 0.1 > /dev/null 2>&1
echo mine | tee "$BUILD/thesis" "$BUILD/0.1/thesis" "$CACHE/thesis" > /dev/null
on_kernel series 0.1 > /dev/null 2>&1
echo mine > "$BUILD/0.1/series/0000-cover-letter.patch"
expect 'what was added to the patches is not lost' fail 'series is not as the lab wrote it' on_kernel series 0.1
expect 'nor by make clean' fail 'series is not as the lab wrote it' lab clean
rm "$BUILD/0.1/series/0000-cover-letter.patch"
flock -s "$BUILD/.vfio-lab" sleep 3 &
sleep 1
expect 'make clean waits for who is at work' 0 'another command is at work' lab clean
wait
on_kernel compose 0.1 > /dev/null 2>&1
expect 'make clean leaves what the lab did not make' 0 '0.1 stays, .*: thesis$' lab clean
expect 'in both folders' 0 '^mine$' cat "$BUILD/thesis" "$BUILD/0.1/thesis"
expect 'and nothing else' 0 "^$BUILD $BUILD/.vfio-lab $BUILD/0.1 $BUILD/0.1/.vfio-lab $BUILD/0.1/thesis $BUILD/thesis \$" \
	bash -c "find '$BUILD' | sort | tr '\n' ' '"
expect 'make distclean leaves it too' 0 'cache stays, .*: thesis$' lab clean all
expect 'and again nothing else' 0 "^$CACHE $CACHE/.vfio-lab $CACHE/thesis \$" bash -c "find '$CACHE' | sort | tr '\n' ' '"
rm -r "$BUILD" "$CACHE"
on_kernel compose 0.1 > /dev/null 2>&1
expect 'without anything of others all goes' 0 '^$' bash -c "'$project/lab/clean.sh' all && ls -d '$BUILD' '$CACHE' 2>/dev/null || echo"
on_kernel compose 0.1 > /dev/null 2>&1

# Writing back, when there were changes on both sides
(
	cd "$tree"
	echo ours >> tools/new.c
	git commit -q -a --fixup "$(git log --format=%h --grep='Add a file')"
	GIT_SEQUENCE_EDITOR=: git rebase -q -i --autosquash base
)
echo theirs >> "$project/linux/tools/new.c"
expect 'a file that was changed here too is not overwritten' fail 'linux/tools/new.c was changed here too' lab writeback 0.1
expect 'and is as it was' 0 '^theirs$' cat "$project/linux/tools/new.c"
sed -i '$d' "$project/linux/tools/new.c"
echo '# mine' >> "$project/linux/commits/new-file.msg"
cp "$project/series/0.1/vfio-count-on.patch" "$project/series/0.1/mine.patch"
sed -i '/^vfio-count-on/i # The first one' "$project/series/0.1/order"
expect 'what the tree does not change stays' 0 'wrote linux/tools/new.c' lab writeback 0.1
expect 'as it was here' 0 '^# mine$' cat "$project/linux/commits/new-file.msg"
expect 'and so does a patch that is in no order' 0 mine ls "$project/series/0.1/mine.patch"
expect 'and a comment in the order' 0 '^# The first one$' cat "$project/series/0.1/order"
sed -i '$d' "$project/linux/commits/new-file.msg"
rm "$project/series/0.1/mine.patch"
on_kernel compose 0.1 > /dev/null 2>&1

# An interruption, wherever it hits.
git -C "$tree" rev-parse HEAD > "$tree/.git/lab/next"
rm -f "$tree/.git/lab/inputs"
printf 'one\n2' > "$tree/drivers/vfio/vfio.c"
: > "$tree/.git/index.lock"
expect 'an interrupted compose is finished' 0 'composed 3' on_kernel compose 0.1
expect 'with the right contents' 0 '^four$' cat "$tree/drivers/vfio/vfio.c"
git -C "$tree" rev-parse HEAD > "$tree/.git/lab/next"
echo mine > "$tree/drivers/vfio/vfio.c"
expect 'but not over edits' fail 'edits that were made when it was half composed' on_kernel compose 0.1
expect 'which stay' 0 '^mine$' cat "$tree/drivers/vfio/vfio.c"
expect 'unless they are to be dropped' 0 'composed 3' env FORCE=1 KERNEL_SRC="$kernel" "$project/lab/compose.sh" 0.1
rm -f "$tree/.git/lab/base"
expect 'a tree that the lab did not make is refused' fail 'is not a tree that the lab has made' on_kernel compose 0.1
rm -rf "$tree"
mkdir -p "$CACHE/src/.tmp.0.1.left/x" "$BUILD/0.1/.tmp.tree"
expect 'leftovers go' 0 . on_kernel compose 0.1
expect 'really' 1 '^$' bash -c "ls -A '$CACHE/src' | grep tmp || { echo; exit 1; }"
source=$(on_kernel fetch 0.1 2> /dev/null)
echo 'scribble' >> "$source/Kconfig"
expect 'a cached source that was changed is restored' 0 'restoring' on_kernel fetch 0.1
expect 'and the change kept' 0 '^\+scribble$' \
	bash -c "cd '$source' && git diff base \$(git for-each-ref --format='%(refname)' refs/lab)"
expect 'also by make distclean' fail 'has edits' lab clean all
git -C "$source" commit -q --allow-empty -m 'vfio: Try something'
expect 'a commit in a cached source is no part of the base either' 0 'restoring' on_kernel fetch 0.1
git -C "$source" for-each-ref --format='%(refname)' refs/lab | xargs -n 1 git -C "$source" update-ref -d
