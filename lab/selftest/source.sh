# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
expect 'an unknown BASE is named, with those there are' fail "unknown BASE '9.9'.*0.1" lab compose 9.9
expect 'an empty BASE is refused' fail "unknown BASE ''" lab build ''
expect 'a BASE is no path' fail "unknown BASE '../x'" lab build ../x
expect 'KERNEL_SRC that is not there' fail 'no such tree' env KERNEL_SRC="$work/nowhere" "$project/lab/fetch.sh" 0.1
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
mkdir -p "$work/other/src"
find "$BUILD" "$CACHE" | sort > "$work/before"
printf 'VERSION = 0\nPATCHLEVEL = 2\nSUBLEVEL = 7\n' > "$work/other/Makefile"
expect 'KERNEL_SRC of another version' fail 'is Linux 0.2.7, and the series is for 0.1' \
	env KERNEL_SRC="$work/other" "$project/lab/build.sh" 0.1 stock
tar -cJf "$work/other.tar.xz" -C "$work" other
expect 'a tarball of another version' fail 'is Linux 0.2.7, and the series is for 0.1' \
	env KERNEL_SRC="$work/other.tar.xz" "$project/lab/run.sh" 0.1
echo nothing > "$work/other/src/file"
tar -cJf "$work/no-kernel.tar.xz" -C "$work/other" src
expect 'a tarball that is no kernel' fail 'not the source of a Linux kernel' \
	env KERNEL_SRC="$work/no-kernel.tar.xz" "$project/lab/test.sh" 0.1
expect 'nothing is built or made for any of them' 0 '^$' bash -c "find '$BUILD' '$CACHE' | sort | diff '$work/before' - && echo"
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
echo "W: Failed to fetch http://deb.example/x  Temporary failure resolving deb.example"; exit 100' > "$work/bin/apt-get"
chmod +x "$work/bin/apt-get"
echo 'deb http://127.0.0.1:9/debian sid main' > "$work/etc/sources.list"
if [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
	expect 'no network' fail 'no network, or the mirror .* does not answer; check it, and run' \
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
	skip downloads 'no Debian keyring'
fi
printf '#!/bin/sh\necho 1000\n' > "$work/bin/id"
printf '#!/bin/sh\necho "W: Temporary failure resolving deb.example"; exit 100\n' > "$work/bin/apt-get"
chmod +x "$work/bin"/*
cp "$project/lab/packages" "$work/packages"
printf 'run\tno-such-package-a\nrun\tno-such-package-b\n' > "$project/lab/packages"
expect 'somebody who is not root is told the one command' fail \
	'apt-get update && apt-get install --no-install-recommends no-such-package-a no-such-package-b' \
	env PATH="$work/bin:$PATH" "$project/lab/deps.sh" run
printf '#!/bin/sh\necho 0\n' > "$work/bin/id"
chmod +x "$work/bin/id"
expect 'and root is told why it cannot be installed' fail 'cannot install no-such-package-a no-such-package-b: no network' \
	env PATH="$work/bin:$PATH" "$project/lab/deps.sh" run
cp "$work/packages" "$project/lab/packages"
rm -f "$work"/bin/*
