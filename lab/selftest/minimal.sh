# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# On a Debian 12 that has git and make, and nothing else that is not in every Debian.

minimal=$work/minimal

# In there as root, with the project and a tarball of its kernel; what is mounted for it
# goes with it
inside()
{
	# shellcheck disable=SC2016	# for that shell to expand
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb unshare -m /bin/sh -c '
		mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" &&
			exec chroot "$1" /bin/bash -c "cd /project && $2"' sh "$minimal" "$1"
}

# The same as nobody, in a copy of theirs
as_nobody()
{
	inside "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp bash -c 'cd /tmp/project && $1'"
}

make_minimal()
{
	local suite=bookworm mirror

	mirror=$(sed -nE 's/^[Uu][Rr][Ii][Ss]:[[:space:]]*([^[:space:]]+\/debian)\/?$/\1/p; s/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+\/debian)\/?[[:space:]].*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
	[[ -n $mirror ]] || return 1
	mmdebstrap --quiet --variant=minbase --include=git,make $suite "$minimal" "$mirror" || return 1
	cp -r "$project" "$minimal/project"
	rm -rf "$minimal/project/.git"
	cp -r "$minimal/project" "$minimal/tmp/project"
	chown -R 65534:65534 "$minimal/tmp/project"
	tar -cJf "$minimal/kernel.tar.xz" -C "$work" kernel
}

if [[ $(id -u) == 0 ]] && command -v mmdebstrap > /dev/null; then
	expect 'a minimal Debian' 0 . bash -c "$(declare -f make_minimal); work='$work' project='$project' minimal='$minimal'; make_minimal && echo made"
	as_nobody 'git config --global user.name "A Sender"; git config --global user.email sender@example.org'
	for target in run test mail; do
		expect "make $target names all that it lacks there" fail \
			'run this as root: apt-get update && apt-get install --no-install-recommends .*[a-z]' \
			as_nobody "make $target BASE=0.1 SET=two"
	done
	expect 'make series too, with a tarball' fail 'apt-get update && apt-get install --no-install-recommends xz-utils$' \
		as_nobody 'KERNEL_SRC=/kernel.tar.xz make series BASE=0.1'
	expect 'as root it installs that, and is done' 0 '[0-9]+ patches; in a kernel tree' \
		inside 'KERNEL_SRC=/kernel.tar.xz make series BASE=0.1'
	expect 'and so is make mail' 0 'send: git send-email' \
		inside 'git config --global user.name "A Sender" && git config --global user.email sender@example.org &&
			KERNEL_SRC=/kernel.tar.xz make mail BASE=0.1 SET=two'
else
	skip 'a minimal Debian' 'needs root, and mmdebstrap'
fi
