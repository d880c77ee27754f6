#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: selftest.sh BASE
#
# Test the lab itself: what it says and what it leaves behind when it is given
# something bad, on a copy of it with a kernel of a few lines; and vmtest.sh, with
# guests that panic, hang or complain if BASE has been built.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

work=''
scratch work "${TMPDIR:-/tmp}"
passed=0 failed=0 skipped=0

# expect WHAT STATUS PATTERN COMMAND...: it ends with STATUS ("fail": any but 0), and
# PATTERN is found in what it says.  A failure of the lab is one line of its own.
expect()
{
	local what=$1 status=$2 pattern=$3 got=0 why=

	shift 3
	"$@" > "$work/said" 2>&1 < /dev/null || got=$?
	if [[ $status == fail ]]; then
		((got != 0)) || why="ended with status 0"
		(($(grep -c 'lab: error:' "$work/said") <= 1)) || why="more than one line of error"
	elif [[ $got != "$status" ]]; then
		why="ended with status $got instead of $status"
	fi
	grep -qE -- "$pattern" "$work/said" || why="${why:+$why, and }did not say '$pattern'"
	if [[ -z $why ]]; then
		echo "ok - $what"
		passed=$((passed + 1))
	else
		echo "not ok - $what: $why"
		tail -n 20 "$work/said" | sed 's/^/#   /'
		failed=$((failed + 1))
	fi
}

#
# A project with a kernel of three files, and a cache and a build of its own.
#
project=$work/project
kernel=$work/kernel
mkdir -p "$project/series/0.1" "$project/linux/commits" "$project/linux/tools" \
	"$kernel/drivers/vfio" "$work/etc"
cp -r "$TOP/lab" "$TOP/Makefile" "$project/"
printf 'VERSION = 0\nPATCHLEVEL = 1\nSUBLEVEL = 0\n' > "$kernel/Makefile"
echo '# nothing' > "$kernel/Kconfig"
printf 'one\ntwo\nthree\n' > "$kernel/drivers/vfio/vfio.c"
printf 'DEBIAN_PACKAGE=linux-source-0.1\nDEBIAN_SUITES=sid\nMIN_VERSION=0.1\n' \
	> "$project/series/0.1/base.conf"
cat > "$project/series/0.1/0001-two.patch" <<-'EOF'
	From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
	From: nobody <nobody@localhost>
	Date: Thu, 1 Jan 1970 00:00:00 +0000
	Subject: [PATCH] vfio: Count on

	Two was not enough.
	---
	diff --git a/drivers/vfio/vfio.c b/drivers/vfio/vfio.c
	--- a/drivers/vfio/vfio.c
	+++ b/drivers/vfio/vfio.c
	@@ -1,3 +1,3 @@
	 one
	-two
	+2
	 three
EOF
echo 'a new file' > "$project/linux/tools/new.c"
printf 'tools: Add a file\n\nIt was missing.\n\nFile: tools/*.c\n' > "$project/linux/commits/new-file.msg"
printf '# In this order.\n0001-two.patch\nnew new-file\n' > "$project/series/0.1/order"
mkdir -p "$kernel/scripts" "$project/mail"
printf '#!/bin/sh\necho "A Maintainer <a@example.org> (maintainer:VFIO)"; echo "list@example.org (open list)"\n' \
	> "$kernel/scripts/get_maintainer.pl"
printf '#!/bin/sh\nexit 0\n' > "$kernel/scripts/checkpatch.pl"
chmod +x "$kernel"/scripts/*.pl
printf 'vfio: Count on\n\tSuggested-by: An Other <b@example.org>\n' > "$project/mail/trailers"
printf '@patch two vfio: Count\nSubject: vfio: Count\n\nPatch #two counts on.\n\n@changes\n@base\n' > "$project/mail/cover"
printf 'v3 9.9\n- Count elsewhere.\nv2\n- Count further.\n' > "$project/mail/changelog"
git init -q "$project"
export CACHE=$work/cache BUILD=$work/build
unset KERNEL_SRC FORCE REFRESH ONLY

lab()
{
	local command=$1

	shift
	"$project/lab/$command.sh" "$@"
}

on_kernel()
{
	KERNEL_SRC=$kernel lab "$@"
}

tree=$BUILD/0.1/tree

expect 'an unknown BASE is named, with those there are' fail "unknown BASE '9.9'.*0.1" lab compose 9.9
expect 'an empty BASE is refused' fail "unknown BASE ''" lab build ''
expect 'a BASE is no path' fail "unknown BASE '../x'" lab build ../x
expect 'KERNEL_SRC that is not there' fail 'no such tree' env KERNEL_SRC=/nonexistent "$project/lab/fetch.sh" 0.1
expect 'KERNEL_SRC that is no kernel' fail 'not the source of a Linux kernel' \
	env KERNEL_SRC="$project" "$project/lab/fetch.sh" 0.1
head -c 1000 /dev/urandom > "$work/bad.tar.xz"
expect 'KERNEL_SRC that is a damaged tarball' fail 'cannot be unpacked' \
	env KERNEL_SRC="$work/bad.tar.xz" "$project/lab/fetch.sh" 0.1
tar -cJf "$work/kernel.tar.xz" -C "$work" kernel
head -c "$(($(stat -c %s "$work/kernel.tar.xz") / 2))" "$work/kernel.tar.xz" > "$work/cut.tar.xz"
expect 'KERNEL_SRC that is a tarball cut short' fail 'cannot be unpacked' \
	env KERNEL_SRC="$work/cut.tar.xz" "$project/lab/fetch.sh" 0.1
expect 'nothing of a damaged source is kept' 1 '^$' \
	bash -c "ls -A '$CACHE/src' | grep . || { echo; exit 1; }"
expect 'KERNEL_SRC may be a tarball' 0 "$CACHE/src/0.1-src-" \
	env KERNEL_SRC="$work/kernel.tar.xz" "$project/lab/fetch.sh" 0.1
expect 'a file is no folder to build in' fail 'cannot write to' env BUILD=/dev/null "$project/lab/fetch.sh" 0.1

# Debian's packages, with an apt that is not.
mkdir -p "$work/bin"
printf '#!/bin/sh\necho "Filesystem 1 2 3 4 5"; echo "x 9 9 9 9 /"\n' > "$work/bin/df"
chmod +x "$work/bin/df"
expect 'a full disk is noticed beforehand' fail 'disk full: .* needs [0-9]+ MiB' \
	env PATH="$work/bin:$PATH" KERNEL_SRC="$kernel" "$project/lab/fetch.sh" 0.1
rm "$work/bin/df"
echo '#!/bin/sh
echo "E: Failed to fetch x  Could not connect to 127.0.0.1:9. - connect (111: Connection refused)"; exit 100' > "$work/bin/apt-get"
chmod +x "$work/bin/apt-get"
echo 'deb http://127.0.0.1:9/debian sid main' > "$work/etc/sources.list"
if [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
	expect 'no network' fail 'no network' \
		env PATH="$work/bin:$PATH" APT_ETC="$work/etc" "$project/lab/fetch.sh" 0.1
	: > "$work/etc/sources.list"
	expect 'no mirror' fail 'no Debian mirror' \
		env PATH="$work/bin:$PATH" APT_ETC="$work/etc" "$project/lab/fetch.sh" 0.1
	echo 'deb http://127.0.0.1:9/debian sid main' > "$work/etc/sources.list"
	# shellcheck disable=SC2016
	printf '#!/bin/sh\ncase $* in *download*) echo damaged > linux-source-0.1.deb;; esac\n' > "$work/bin/apt-get"
	expect 'a damaged download' fail 'damaged' \
		env PATH="$work/bin:$PATH" APT_ETC="$work/etc" "$project/lab/fetch.sh" 0.1
else
	echo 'skip - downloads: no Debian keyring # SKIP'
	skipped=$((skipped + 1))
fi
if [[ $(id -u) == 0 ]]; then
	printf '#!/bin/sh\necho 1000\n' > "$work/bin/id"
	chmod +x "$work/bin/id"
fi
printf 'run\tno-such-package-a\nrun\tno-such-package-b\n' > "$project/lab/packages"
expect 'somebody who is not root is told the one command' fail \
	'apt-get install --no-install-recommends no-such-package-a no-such-package-b' \
	env PATH="$work/bin:$PATH" "$project/lab/deps.sh" run

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

# Mail.  The lab must not take anybody for the sender who is not.
sender=$work/sender
letter=$BUILD/0.1/mail
mail()
{
	env GIT_CONFIG_GLOBAL="$sender" GIT_CONFIG_NOSYSTEM=1 KERNEL_SRC="$kernel" "$@"
}

: > "$sender"
expect 'mail needs a name' fail 'who sends this.*user.name' mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.name 'A Sender'
expect 'and an address' fail "who sends this.*''" mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.email nobody@localhost
expect 'that works' fail "'nobody@localhost' is no address" mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.email sender@example.org
expect 'a version is a number' fail 'V=two: not the number' mail V=two "$project/lab/mail.sh" 0.1
expect 'a version says what changed' fail 'no section v4' mail V=4 "$project/lab/mail.sh" 0.1
expect 'on this kernel' fail 'no section v3 that is for 0.1' mail V=3 "$project/lab/mail.sh" 0.1
echo 'vfio: No such patch' >> "$project/mail/trailers"
cp "$project/lab/packages" "$work/packages"
: > "$project/lab/packages"
expect 'trailers are for patches that there are' fail "no patch has the subject 'vfio: No such patch'" \
	mail "$project/lab/mail.sh" 0.1
sed -i '$d' "$project/mail/trailers"
if [[ -x $(git --exec-path)/git-send-email ]] && command -v b4 >/dev/null; then
	expect 'mail that can be sent' 0 'send: git send-email' mail "$project/lab/mail.sh" 0.1
	expect 'is all of the series' 0 '^4$' bash -c "find '$letter' -name '*.patch' | wc -l"
	expect 'from the sender, with who had the idea' 0 '^To: A Maintainer.*Cc: An Other <b@.* list@.*Suggested-by: An.*Signed-off-by: A Sender <sender@' \
		bash -c "grep -hE '^(To|Cc|    |Suggested|Signed)' '$letter'/0001-* | head -n 5 | tr -s '\n ' ' '"
	expect 'with numbers in the cover letter' 0 '^Patch 1 counts on.' cat "$letter/0000-cover-letter.patch"
	cp -r "$letter" "$work/bad"
	sed -i '/^To:/d' "$work"/bad/0001-*
	expect 'mail to nobody' fail 'not ok - everything has To' mail "$project/lab/mail-check.sh" 0.1 "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i 's/^+2/+3/' "$work"/bad/0001-*
	expect 'mail of something else' fail 'not ok - git am makes the tree' mail "$project/lab/mail-check.sh" 0.1 "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i '/^Signed-off-by/d' "$work"/bad/0002-*
	expect 'mail that nobody signs' fail 'not ok - all is signed off' mail "$project/lab/mail-check.sh" 0.1 "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i 's/^In-Reply-To: .*/In-Reply-To: <another@example.org>/' "$work"/bad/0003-*
	expect 'mail that is no thread' fail 'not ok - they are one thread' mail "$project/lab/mail-check.sh" 0.1 "$work/bad"
	expect 'a second version' 0 'send: git send-email' mail V=2 "$project/lab/mail.sh" 0.1
	expect 'says what changed, and is numbered' 0 'PATCH v2 0/3.*Changes in v2: - Count further.' \
		bash -c "grep -hE '^(Subject|Changes|- )' '$letter'/v2-0000-* | tr '\n' ' '"
	expect 'for a tree without history there is no commit to name' fail '^$' \
		bash -c "grep -h '^base-commit' '$letter'/v2-0000-* || { echo; exit 1; }"
	cp -r "$kernel" "$work/linux"
	git -C "$work/linux" init -q
	git -C "$work/linux" add .
	git -C "$work/linux" -c user.name=nobody -c user.email=nobody@localhost commit -q -m 'Linux 0.1'
	expect 'a clone of Linux' 0 'send: git send-email' mail KERNEL_SRC="$work/linux" "$project/lab/mail.sh" 0.1
	expect 'is named by its commit' 0 "^base-commit: $(git -C "$work/linux" rev-parse HEAD)" \
		cat "$letter/0000-cover-letter.patch"
	on_kernel compose 0.1 > /dev/null 2>&1
else
	echo 'skip - mail: no git send-email, or no b4 # SKIP'
	skipped=$((skipped + 1))
fi
cp "$work/packages" "$project/lab/packages"

echo changed > "$tree/drivers/vfio/vfio.c"
expect 'writing back needs commits' fail 'not committed' lab writeback 0.1
expect 'make clean keeps edits' fail 'edits' lab clean
git -C "$tree" checkout -q .

# An interruption, wherever it hits.
git -C "$tree" rev-parse HEAD > "$tree/.git/lab/next"
rm -f "$tree/.git/lab/inputs"
echo half > "$tree/drivers/vfio/vfio.c"
: > "$tree/.git/index.lock"
expect 'an interrupted compose is finished' 0 'composed 3' on_kernel compose 0.1
expect 'with the right contents' 0 '^four$' cat "$tree/drivers/vfio/vfio.c"
rm -f "$tree/.git/lab/base"
expect 'a tree that was not finished is made anew' 0 'incomplete' on_kernel compose 0.1
mkdir -p "$CACHE/src/.tmp.left/x" "$BUILD/0.1/.tmp.tree"
expect 'leftovers go' 0 . on_kernel compose 0.1
expect 'really' 1 '^$' bash -c "ls -A '$CACHE/src' | grep tmp || { echo; exit 1; }"
echo 'scribble' >> "$(on_kernel fetch 0.1)/Kconfig"
expect 'a cached source that was changed is restored' 0 'restoring' on_kernel fetch 0.1

# Series that cannot be applied.
cp -a "$kernel" "$work/newer"
git -C "$work/newer" apply "$project/series/0.1/0001-vfio-Count-on.patch"
expect 'a kernel that has a patch already' fail \
	'0001-[^ ]*.patch is in this kernel already' env KERNEL_SRC="$work/newer" "$project/lab/compose.sh" 0.1
sed -i 's/^-two/-too/' "$project/series/0.1/0001-vfio-Count-on.patch"
expect 'a patch that does not apply is named, and its file' fail \
	'0001-vfio-Count-on.patch does not apply: drivers/vfio/vfio.c:1' on_kernel compose 0.1
echo '0009-none.patch' > "$project/series/0.1/order"
expect 'a patch that is not there' fail '0009-none.patch, which is not in' on_kernel compose 0.1
echo 'new none' > "$project/series/0.1/order"
expect 'a message that is not there' fail 'no linux/commits/none.msg' on_kernel compose 0.1
rm "$project/series/0.1/order"
expect 'a base with no series' fail 'order is missing' on_kernel compose 0.1

#
# Tests that may fail
#
runner=$project/linux/tools/testing/selftests/vfio/vmtest.sh
mkdir -p "${runner%/*}"
printf '#!/bin/sh\ncat "%s/ktap"\n! grep -q "^not ok" "%s/ktap"\n' "$work" "$work" > "$runner"
chmod +x "$runner"
echo 'fake | | 1 | 10 | | fake' > "$project/lab/tests.list"

ktap()
{
	echo "1..$#"
	printf '%s\n' "$@" | awk '{ sub(/ok/, "ok " NR); print }'
}

expected()
{
	printf '%s\n' "$@" > "$project/lab/expected.list"
}

run_fake()
{
	lab vmtests 0.1 "$work/kernel" "$work"
}

ktap 'ok a.good' 'not ok a.bad' > "$work/ktap"
expected '# nothing'
expect 'a test that fails' 1 '^not ok - fake: a.bad$' run_fake
expected '# base | name | test | reason' '' '0.1 | fake | a.bad | it is old' '9.9 | fake | a.good | no'
expect 'a test that may fail on this base' 0 '^skip - fake: a.bad # fails on 0.1: it is old$' run_fake
expect 'is not counted as failed' 0 '^1 passed, 0 failed, 1 skipped$' run_fake
ktap 'ok a.good' 'not ok a.bad' 'not ok a.worse' > "$work/ktap"
expect 'beside it another may not' 1 '^1 passed, 1 failed, 1 skipped$' run_fake
ktap 'ok a.good' 'ok a.bad' > "$work/ktap"
expect 'a test that may fail and passes' 1 '^not ok - fake: a.bad \(passes, ' run_fake
ktap 'ok a.good' 'ok a.bad # SKIP nothing to do' > "$work/ktap"
expect 'a test that may fail and skips' 0 '^1 passed, 0 failed, 1 skipped$' run_fake
ktap 'ok a.good' > "$work/ktap"
expect 'a test that may fail and is not there' 1 '^not ok - fake: a.bad \(.* no such test\)$' run_fake
ktap 'ok a.good' 'not ok a.bad' > "$work/ktap"
expected '9.9 | fake | a.bad | it is older'
expect 'a test that may fail on another base' 1 '^not ok - fake: a.bad$' run_fake
expected '0.1 | fake | a.bad'
expect 'a test that may fail without a reason' fail 'expected.list:1: not' run_fake
expected '0.1 | fake | a.bad |'
expect 'or with an empty one' fail 'expected.list:1: not' run_fake

#
# The runner
#
kernel=$TOP/build/$BASE/stock
printf '#!/bin/sh\nexit 0\n' > "$work/true"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$1"; exit 3\n' > "$work/three"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$(readlink "/sys/bus/pci/devices/$2/driver") $1"\n' > "$work/bound"
printf '#!/bin/sh\necho "WARNING: not really" > /dev/kmsg\n' > "$work/warn"
printf '#!/bin/sh\necho "Oops: not really" > /dev/kmsg; kill -9 $$\n' > "$work/oops"
printf '#!/bin/sh\nkill -9 $$\n' > "$work/killed"
printf '#!/bin/sh\necho waiting; sleep 1000\n' > "$work/hang"
chmod +x "$work"/{true,three,bound,warn,oops,killed,hang}

expect 'vmtest.sh: bad usage' 127 'expected BUILD_DIR' "$VMTEST"
expect 'vmtest.sh: an unknown option' 127 'unknown option -x' "$VMTEST" -x
expect 'vmtest.sh: an option without its value' 127 'needs a value' "$VMTEST" -c
expect 'vmtest.sh: a bad number' 127 'not a positive number' "$VMTEST" -c two /tmp -- "$work/true"
expect 'vmtest.sh: a bad ID' 127 'not VENDOR:DEVICE' "$VMTEST" -b edu /tmp -- "$work/true"
expect 'vmtest.sh: no kernel' 127 'no bzImage' "$VMTEST" "$work" -- "$work/true"
if [[ -s $kernel/bzImage && -s $kernel/modules/order ]]; then
	mkdir -p "$work/half/modules"
	echo x > "$work/half/bzImage"
	echo gone.ko > "$work/half/modules/order"
	expect 'vmtest.sh: half a kernel' 127 'gone.ko: missing' "$VMTEST" "$work/half" -- "$work/true"
	expect 'vmtest.sh: no program' 127 'no such program' "$VMTEST" "$kernel" -- "$work/none"
	expect 'vmtest.sh: no QEMU' 127 'qemu-none: not installed' "$VMTEST" -q qemu-none "$kernel" -- "$work/true"
	expect 'vmtest.sh: a QEMU that fails' 126 'QEMU ended' "$VMTEST" -q false "$kernel" -- "$work/true"
	expect 'vmtest.sh: a device that QEMU does not know' 126 'no-such-device' \
		"$VMTEST" -d no-such-device "$kernel" -- "$work/true"
	expect 'vmtest.sh: the status and output of the program' 3 "^it's \"here\" *\\\$x" \
		"$VMTEST" -n "$kernel" -- "$work/three" "it's \"here\"  \$x"
	expect 'vmtest.sh: a device for the program' 0 '/vfio-pci.*first' \
		"$VMTEST" -b 1234:11e8 "$kernel" -- "$work/bound" first
	expect 'vmtest.sh: a warning in the guest' 125 'WARNING: not really' "$VMTEST" -n "$kernel" -- "$work/warn"
	expect 'vmtest.sh: a splat goes before a status' 125 'Oops: not really' "$VMTEST" -n "$kernel" -- "$work/oops"
	expect 'vmtest.sh: a program that is killed' 123 'by signal 9' "$VMTEST" -n "$kernel" -- "$work/killed"
	expect 'vmtest.sh: a guest that panics' 125 'Kernel panic' \
		env VMTEST_APPEND=rdinit=/nonexistent "$VMTEST" -n "$kernel" -- "$work/true"
	expect 'vmtest.sh: a guest that hangs' 124 'no end after 15 seconds' \
		"$VMTEST" -n -t 15 "$kernel" -- "$work/hang"
else
	echo "skip - vmtest.sh: no stock $BASE in $kernel # SKIP"
	skipped=$((skipped + 1))
fi

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
