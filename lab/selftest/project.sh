# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# A project with a kernel of three files, and a cache and a build of its own.
#
project=$work/project
kernel=$work/kernel
mkdir -p "$project/series/0.1" "$project/linux/commits" "$project/linux/tools" \
	"$kernel/drivers/vfio" "$kernel/include/linux" "$kernel/tools" "$work/etc"
cp -r "$TOP/lab" "$TOP/Makefile" "$project/"
printf 'VERSION = 0\nPATCHLEVEL = 1\nSUBLEVEL = 0\n' > "$kernel/Makefile"
echo '# nothing' > "$kernel/Kconfig"
echo '/* nothing */' > "$kernel/include/linux/vfio.h"
# shellcheck disable=SC2016
printf 'tests := old\nall: $(tests)\n' > "$kernel/tools/Makefile"
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
printf 'tools: Add a file\n\nIt was missing.\n\nFile: tools/*.c\nLine: tools/Makefile: tests += new\n' > "$project/linux/commits/new-file.msg"
printf '# In this order.\nset two\n0001-two.patch\nnew new-file\n' > "$project/series/0.1/order"
mkdir -p "$kernel/scripts" "$project/mail/cover"
# shellcheck disable=SC2016
printf '#!/bin/sh\ncase "$*" in *--nol) echo "A Maintainer <a@example.org>" ;; *) echo list@example.org ;; esac\n' \
	> "$kernel/scripts/get_maintainer.pl"
printf '#!/bin/sh\nexit 0\n' > "$kernel/scripts/checkpatch.pl"
chmod +x "$kernel"/scripts/*.pl
printf 'vfio: Count on\n\tSuggested-by: An Other <b@example.org>\n' > "$project/mail/trailers"
printf '@patch two vfio: Count\n@patch file tools: Add\nSubject: vfio: Count\n\nPatch #two counts on.\n\n@include review\n@changes\n' > "$project/mail/cover/two"
printf 'Subject: vfio: Count further\n\nThree is not enough.\n' > "$project/mail/cover/one"
printf 'Nobody has read patch #file.\n' > "$project/mail/review"
printf 'v3 9.9\n- Count elsewhere.\nv3 one 0.1\n- Count otherwise.\nv2\n- Count further.\n' > "$project/mail/changelog"
git init -q "$project"
mkdir "$work/home"
export CACHE=$work/cache BUILD=$work/build HOME=$work/home
unset KERNEL_SRC FORCE REFRESH ONLY LAB_KERNEL_SRC LAB_STEPS LAB_GIT LAB_NAME LAB_EMAIL XDG_CACHE_HOME XDG_CONFIG_HOME

# fresh COMMAND...: as somebody calls it who has nothing to do with this test
fresh()
{
	env -u GIT_CONFIG_GLOBAL -u GIT_CONFIG_NOSYSTEM -u GIT_CONFIG_COUNT -u LAB_NAME -u LAB_EMAIL \
		-u LAB_GIT "$@"
}

lab()
{
	local command=$1

	shift
	fresh "$project/lab/$command.sh" "$@"
}

on_kernel()
{
	KERNEL_SRC=$kernel lab "$@"
}

in_make()
{
	fresh make -s -C "$project" "$@"
}

# What came after it may look different, this is what went before
plain=$work/plain.gitconfig
git config -f "$plain" user.name 'A Sender'
git config -f "$plain" user.email sender@example.org

tree=$BUILD/0.1/tree
