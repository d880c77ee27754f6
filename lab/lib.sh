# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What every command of the lab shares: where things are, what a base is, how a
# long step shows that it is alive, and how two runs keep out of each other's way.

set -euo pipefail
export LC_ALL=C
umask 022
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE MAKEFLAGS MFLAGS MAKELEVEL

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vfio-devmem}
BUILD=${BUILD:-$TOP/build}
JOBS=${JOBS:-$(nproc)}
FLAVOR=${FLAVOR:-debug}
ARCH=x86_64

SELFTESTS=tools/testing/selftests/vfio
# shellcheck disable=SC2034
VMTEST=$TOP/linux/$SELFTESTS/vmtest.sh

say()
{
	echo "lab: $*" >&2
}

die()
{
	echo "lab: error: $*" >&2
	exit 1
}

# The kernels that there is a series for, the oldest first.
bases()
{
	(cd "$TOP/series" && find . -mindepth 2 -maxdepth 2 -name base.conf) |
		sed 's,^\./,,; s,/base\.conf$,,' | sort -V
}

# shellcheck disable=SC2034	# read by the commands
load_base()
{
	BASE=${1:-}
	[[ $BASE =~ ^[A-Za-z0-9._-]+$ && -f $TOP/series/$BASE/base.conf ]] ||
		die "unknown BASE '$BASE'; this project has: $(bases | paste -s -d ' ')"

	SERIES=$TOP/series/$BASE
	OUT=$BUILD/$BASE
	TREE=$OUT/tree
	# What is built of it, for each flavor beside the others
	KERNELS=$OUT
	[[ $FLAVOR == debug ]] || KERNELS=$OUT/$FLAVOR
	LOGS=$KERNELS/logs
	DEBIAN_PACKAGE='' DEBIAN_SUITES='' MIN_VERSION='' EXTRA_CONFIG='' CHECK_X86_64='' CHECK_ARM64=''
	# shellcheck source=/dev/null
	. "$SERIES/base.conf"
	[[ -f $TOP/lab/config/$FLAVOR.config ]] ||
		die "unknown FLAVOR '$FLAVOR'; lab/config has debug and release"

	CACHE=$(absolute "$CACHE")
	writable "$CACHE" ||
		die "cannot write to $CACHE; set CACHE= to a folder that can be written"
	writable "$LOGS" ||
		die "cannot write to $LOGS; set BUILD= to a folder that can be written"
}

writable()
{
	mkdir -p "$1" 2>/dev/null && [[ -w $1 ]]
}

absolute()
{
	realpath -m -- "$1"
}

# Free space is checked before a step rather than after it has failed half way.
need_space()
{
	local dir=$1 mib=$2 what=$3 have

	have=$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')
	((have >= mib)) ||
		die "disk full: $what needs $mib MiB in $dir, $have MiB are free; make room or set CACHE= and BUILD="
}

# lock NAME: one run at a time beyond this point.  The lock goes with the process,
# and with whatever it started, so that an orphaned compiler still holds it.
lock()
{
	local file=$1 fd

	mkdir -p "$(dirname "$file")"
	exec {fd}> "$file" || die "cannot write $file"
	if ! flock -n "$fd"; then
		say "another run is busy here (${file##*/}); waiting for it"
		flock "$fd" || die "cannot lock $file"
	fi
}

running=
stop_running()
{
	if [[ -n $running ]]; then
		kill -TERM -- "-$running" 2>/dev/null || :
		wait "$running" 2>/dev/null || :
		running=
	fi
}

scratch_dirs=()
cleanup()
{
	stop_running
	if ((${#scratch_dirs[@]})); then
		rm -rf -- "${scratch_dirs[@]}"
	fi
}

trap cleanup EXIT
trap 'echo >&2; say "interrupted; run the same command again to go on"; exit 130' INT
trap 'say "terminated"; exit 143' TERM HUP

# scratch VAR PARENT: a temporary directory that does not outlive the command.
scratch()
{
	local -n result=$1

	mkdir -p "$2"
	result=$(mktemp -d "$2/.tmp.XXXXXX") || die "cannot make a temporary directory in $2: disk full?"
	scratch_dirs+=("$result")
}

# progress LABEL LOG COMMAND...: run it with its output in LOG and say every few
# seconds that it lives.  COMMAND may be a function, and must return its failures
# itself: errexit is off in it.
progress()
{
	local label=$1 log=$2 start=$SECONDS next=$((SECONDS + 15)) status=0 last

	shift 2
	mkdir -p "$(dirname "$log")"
	say "$label ..."
	set -m
	"$@" > "$log" 2>&1 < /dev/null &
	running=$!
	set +m
	while kill -0 "$running" 2>/dev/null; do
		sleep 0.2
		if ((SECONDS >= next)); then
			next=$((SECONDS + 15))
			last=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | tr -s ' \t' ' ' | cut -c 1-60)
			say "$label: $((SECONDS - start)) s, $(wc -l < "$log") lines of log;${last:+ ${last# }}"
		fi
	done
	wait "$running" || status=$?
	running=
	if ((status == 0)); then
		say "$label: done in $((SECONDS - start)) s"
	elif grep -q 'No space left on device' "$log"; then
		die "$label: disk full; make room and run the same command again"
	fi
	return "$status"
}

# The first lines of a log that look like the reason.
reason()
{
	grep -E -m 3 'error:|Error [0-9]|\*\*\*|fatal:|undefined reference|not found' "$1" ||
		tail -n 3 "$1"
}

use_ccache()
{
	if command -v ccache >/dev/null; then
		export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
		CC='ccache gcc'
	else
		CC=gcc
	fi
}

# Everything that would make two builds of one source differ is pinned.
kernel_make()
{
	make -C "$1" ARCH="$ARCH" O="obj-$FLAVOR" CC="$CC" LOCALVERSION= \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "${@:2}"
}

git_identity()
{
	git config user.name >/dev/null 2>&1 || export GIT_AUTHOR_NAME=lab GIT_COMMITTER_NAME=lab
	git config user.email >/dev/null 2>&1 ||
		export GIT_AUTHOR_EMAIL=lab@localhost GIT_COMMITTER_EMAIL=lab@localhost
}

# A composed tree that is not as compose.sh left it.
edited()
{
	[[ $(git -C "$1" rev-parse HEAD) != "$(cat "$1/.git/lab/commit")" ||
	   -n $(git -C "$1" status --porcelain --untracked-files=no | head -n 1) ]]
}

# adopt_objects FROM TO PLACE: give the tree TO, which will be moved to PLACE, the
# objects of the build in FROM, made newer than its files and told where they are, so
# that building it compiles what differs from FROM, no more.
adopt_objects()
{
	local from=$1 obj=$2/obj-$FLAVOR place=$3

	[[ -f $from/obj-$FLAVOR/.complete ]] || return 0
	cp -a --reflink=auto "$from/obj-$FLAVOR" "$obj" || return 1
	rm -f "$obj/.complete" || return 1
	touch "$obj/.config" || return 1
	grep -rlIZ --include='.*.cmd' --include='*.d' -F "$from/" "$obj" |
		xargs -0 -r sed -i "s|$from/|$place/|g" || return 1
	find "$obj" -type f -print0 | xargs -0 -r touch -r "$obj/.config"
}

# build_programs VARIANT...: builds these kernels and the selftests for them, and sets
# $programs to the folder of the latter
build_programs()
{
	local variant

	for variant; do
		"$TOP/lab/build.sh" "$BASE" "$variant" >/dev/null || return 1
	done
	# shellcheck disable=SC2034	# read by the commands
	programs=$("$TOP/lab/selftests.sh" "$BASE" "$@")
}

# clone_patched DIR COMMIT: a second clone of the patched tree, with its objects, to
# build others of its commits in
clone_patched()
{
	local dir=$1 commit=$2

	rm -rf "$dir" "$dir.new" || return 1
	git clone -q --local --no-checkout -o source "$TREE" "$dir.new" || return 1
	echo '/obj-*/' >> "$dir.new/.git/info/exclude" || return 1
	git -C "$dir.new" checkout -q -f --detach "$commit" || return 1
	adopt_objects "$TREE" "$dir.new" "$dir" || return 1
	mv -T "$dir.new" "$dir"
}

compile_clone()
{
	kernel_make "$1" -j"$JOBS" bzImage modules
}

# publish_clone CLONE DIR: the kernel image and the modules that come of a clone, and
# the load order of the patched kernel
publish_clone()
{
	local clone=$1 dir=$2 ko

	rm -rf "$dir"
	mkdir -p "$dir/modules"
	cp "$clone/obj-$FLAVOR/arch/x86/boot/bzImage" "$dir/"
	# modules.order has .ko names, or .o names on newer kernels.
	while read -r ko; do
		cp "$clone/obj-$FLAVOR/${ko%.*}.ko" "$dir/modules/"
	done < "$clone/obj-$FLAVOR/modules.order"
	cp "$KERNELS/patched/modules/order" "$dir/modules/order"
}

# The version of the kernel that a guest's log is of
guest_version()
{
	tr -d '\r' < "$1" | sed -nE 's/.*Linux version ([0-9.]+).*/\1/p' | head -n 1
}

# $1 without the blanks around it, as a field of one of the lab's lists
trim()
{
	sed 's/^[[:space:]]*//; s/[[:space:]]*$//' <<< "$1"
}
