#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: fetch.sh BASE
#
# Make sure that the source of a base stands in the cache, unpacked, as a git tree
# with one commit, and print its path.  It is Debian's package, or whatever tree or
# tarball KERNEL_SRC names.  A tree gets its final name when it is complete, so one
# that is there can be trusted; REFRESH=1 asks Debian whether there is a newer one.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
# shellcheck source=lab/mirror.sh
. "$TOP/lab/mirror.sh"
"$TOP/lab/deps.sh" source

new='' deb=''

apt_fetch()
{
	private_apt update || return 1
	(cd "$apt/download" && private_apt download "$DEBIAN_PACKAGE") || return 1
}

downloaded()
{
	echo "$(du -smc "$apt/cache/archives" "$apt/download" 2>/dev/null | awk 'END { print $1 }') MiB so far"
}

# Leaves the package in $deb.
download()
{
	local suite mirror log=$LOGS/fetch.log attempt why="apt is configured with no Debian mirror"

	command -v apt-get >/dev/null || die "no apt-get here; give a kernel tree or tarball with KERNEL_SRC="
	apt_begin
	for suite in $DEBIAN_SUITES; do
		for mirror in $(mirrors_for "$suite"); do
			echo "deb [signed-by=$KEYRING] $mirror $suite main" > "$apt/sources.list"
			for attempt in 1 2; do
				rm -f "$apt"/download/*
				HOW_FAR=downloaded
				if progress "downloading $DEBIAN_PACKAGE ($suite)" "$log" apt_fetch; then
					deb=$(find "$apt/download" -name '*.deb')
					if dpkg-deb --fsys-tarfile "$deb" >/dev/null 2>> "$log"; then
						return
					fi
					why="the download from $mirror is damaged"
				else
					why=$(why_apt_failed "$log" "the mirror $mirror")
				fi
				[[ $why == *damaged* ]] || break
				say "$why; attempt $attempt"
			done
		done
	done
	die "cannot fetch $DEBIAN_PACKAGE: $why (or give a kernel tree or tarball with KERNEL_SRC=)"
}

unpack_deb()
{
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO --wildcards "./usr/src/$DEBIAN_PACKAGE.tar.*" > "$apt/source.tar" || return 1
	tar -xf "$apt/source.tar" --strip-components=1 -C "$new" || return 1
	rm -f "$apt/source.tar"
}

unpack_source()
{
	if [[ -f $KERNEL_SRC ]]; then
		tar -xf "$KERNEL_SRC" --strip-components=1 -C "$new" || return 1
	elif git -C "$KERNEL_SRC" rev-parse --show-cdup 2>/dev/null | grep -qx ''; then
		(cd "$KERNEL_SRC" && git ls-files -z --deduplicate |
			tar -c --null --no-recursion --ignore-failed-read -T - 2>/dev/null) |
			tar -x -C "$new" || return 1
	else
		tar -c -C "$KERNEL_SRC" --exclude=./.git --exclude='*.o' --exclude='*.ko' \
			--exclude='.*.cmd' . | tar -x -C "$new" || return 1
	fi
}

# With this threshold every file goes straight into one pack: no object files to
# write and to sync one by one.
make_git()
{
	local quick=(-c core.bigFileThreshold=1 -c core.compression=1 -c core.autocrlf=false)

	git -C "$new" init -q -b source || return 1
	git -C "$new" config gc.auto 0 || return 1
	git -C "$new" "${quick[@]}" add -Af . || return 1
	git -C "$new" "${quick[@]}" commit -q --no-verify -m "$1" || return 1
	git -C "$new" tag base || return 1
	mkdir -p "$new/.git/info" || return 1
	printf '%s\n' /obj-debug/ /obj-release/ >> "$new/.git/info/exclude"
}

# What distinguishes one tree or tarball of the user's from the next.
source_key()
{
	if [[ -f $KERNEL_SRC ]]; then
		sha256sum < "$KERNEL_SRC"
	elif git -C "$KERNEL_SRC" rev-parse --show-cdup 2>/dev/null | grep -qx ''; then
		{
			git -C "$KERNEL_SRC" rev-parse HEAD
			git -C "$KERNEL_SRC" -c core.fsmonitor=false diff --no-ext-diff --no-textconv HEAD
		} | sha256sum
	else
		(cd "$KERNEL_SRC" && find . -type f \( -name '*.[chS]' -o -name 'K*' -o -name 'Makefile*' \) \
			-printf '%p %s %T@\n' | sort | sha256sum)
	fi | cut -c 1-12
}

finish()
{
	local name=$1 version

	version=$(version_in < "$new/Makefile") || version=
	[[ -n $version && -f $new/Kconfig && -d $new/drivers/vfio ]] ||
		die "$2: this is not the source of a Linux kernel"
	progress "recording it in git" "$LOGS/unpack.log" make_git "Linux $version" ||
		die "cannot record the source in git: $(reason "$LOGS/unpack.log")"
	mv -T "$new" "$CACHE/src/$name"
}

newest()
{
	find "$CACHE/src" -mindepth 1 -maxdepth 1 -type d -name "$KERNEL-debian-*" 2>/dev/null |
		sort -V | tail -n 1
}

lock "$CACHE/lock-src-$KERNEL"
mkdir -p "$CACHE/src"
find "$CACHE" "$CACHE/src" -mindepth 1 -maxdepth 1 -name ".tmp.$BASE.*" -exec rm -rf {} +

if [[ -n ${KERNEL_SRC:-} ]]; then
	name=$KERNEL-src-$(source_key)
	if [[ ! -d $CACHE/src/$name ]]; then
		need_space "$CACHE" 3000 "a kernel tree"
		scratch new "$CACHE/src"
		progress "unpacking $KERNEL_SRC" "$LOGS/unpack.log" unpack_source ||
			die "$KERNEL_SRC cannot be unpacked: $(reason "$LOGS/unpack.log")"
		finish "$name" "$KERNEL_SRC"
	fi
	tree=$CACHE/src/$name
else
	tree=$(newest)
	if [[ -z $tree || -n ${REFRESH:-} ]]; then
		need_space "$CACHE" 4000 "a kernel tree"
		download
		version=$(dpkg-deb -f "$deb" Version)
		dpkg --compare-versions "$version" ge "$MIN_VERSION" ||
			die "the mirror has $DEBIAN_PACKAGE $version, this series needs $MIN_VERSION; its mirror is out of date"
		name=$KERNEL-debian-$version
		if [[ ! -d $CACHE/src/$name ]]; then
			scratch new "$CACHE/src"
			progress "unpacking $DEBIAN_PACKAGE $version" "$LOGS/unpack.log" unpack_deb ||
				die "$DEBIAN_PACKAGE $version cannot be unpacked: $(reason "$LOGS/unpack.log")"
			finish "$name" "$DEBIAN_PACKAGE"
		fi
		tree=$CACHE/src/$name
	fi
fi

if ! status=$(git -C "$tree" status --porcelain --untracked-files=no 2>/dev/null) ||
   ! git -C "$tree" cat-file -e 'base^{tree}' 2>/dev/null ||
   ! head=$(git -C "$tree" rev-parse HEAD); then
	die "the source in $tree is damaged; remove it: rm -rf '$tree'"
fi
# A cached tree that somebody edited is not the base any more.
if [[ -n $status || $head != "$(git -C "$tree" rev-parse 'base^{commit}')" ]]; then
	kept=refs/lab/edits-$(date +%Y%m%d-%H%M%S)
	[[ -z $status ]] || head=$(git -C "$tree" stash create 2>/dev/null) || head=
	if [[ -z $head ]] || ! git -C "$tree" update-ref "$kept" "$head"; then
		die "$tree was changed, and the changes cannot be kept; git -C $tree status tells them"
	fi
	git -C "$tree" reset -q --hard base
	say "$tree was changed; restoring it (what was changed is kept: git -C $tree diff base $kept)"
fi
echo "$tree"
